"""Questions as policies read them: template, chat, and questions without room for a response."""

import pytest

from openrlhf_prm.data.prompts import PromptOptions, QuestionTooLong, check_lengths, prompt_maker
from openrlhf_prm.data.questions import Question


class Chat:
    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": list(text)}

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize and add_generation_prompt
        return "".join(f"<{message['role']}>{message['content']}" for message in messages) + "<assistant>"


def test_the_template_stands_inside_the_chat():
    assert prompt_maker(PromptOptions(), None)("2+{}?") == "2+{}?"
    assert prompt_maker(PromptOptions(input_template="Q: {}\nA: {}"), None)("2?") == "Q: 2?\nA: 2?"
    chat = PromptOptions(input_template="Q: {}", apply_chat_template=True)
    assert prompt_maker(chat, Chat())("2?") == "<user>Q: 2?<assistant>"
    with pytest.raises(ValueError, match="^input_template has no {} for the question: 'x'$"):
        PromptOptions(input_template="x")


def test_a_question_without_room_for_a_response_is_named():
    questions = [Question("a", "1234", "1"), Question("b", "12345", "1")]
    check_lengths(questions, str, Chat(), 6)
    check_lengths(questions, str, Chat(), None)
    with pytest.raises(QuestionTooLong, match="--data.input: question b .*has 5 tokens.*context is 5"):
        check_lengths(questions, str, Chat(), 5)
