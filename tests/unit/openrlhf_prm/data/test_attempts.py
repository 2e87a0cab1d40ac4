"""What stands between two attempts: in a chain, in plain text, in a chat."""

import pytest

from openrlhf_prm.data.attempts import IN_A_CHAIN, IN_A_TURN, AttemptOptions, joined, without_ending, words_between
from openrlhf_prm.data.prompts import PromptOptions


class Chat:
    """A template as most are: a role, the stripped content, an end of message. It takes system messages nowhere."""

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert tokenize is False
        text = "".join(f"<{m['role']}>{m['content'].strip()}<end>\n" for m in messages)
        return text + ("<assistant>" if add_generation_prompt else "")


def test_in_a_chain_the_words_are_a_line():
    assert words_between(AttemptOptions(within_chain=True), PromptOptions(), None) == f"\n{IN_A_CHAIN}\n"
    given = AttemptOptions(within_chain=True, instruction="\nHm.\n")
    assert words_between(given, PromptOptions(apply_chat_template=True), Chat()) == "\nHm.\n"


def test_in_plain_text_the_words_stand_as_questions_do():
    assert words_between(AttemptOptions(), PromptOptions(), None) == f"\n{IN_A_TURN}\n"
    template = PromptOptions(input_template="Human: {}\nAssistant:")
    assert words_between(AttemptOptions(instruction="Again."), template, None) == "\nHuman: Again.\nAssistant:"


def test_in_a_chat_the_first_attempts_message_is_ended_and_the_next_one_begun():
    words = words_between(AttemptOptions(instruction="Again."), PromptOptions(apply_chat_template=True), Chat())
    assert words == "<end>\n<user>Again.<end>\n<assistant>"


def test_a_template_that_takes_no_second_turn_names_the_flag():
    class Single(Chat):
        def apply_chat_template(self, messages, **_):
            raise RuntimeError("one message only")

    class Forgetful(Chat):
        def apply_chat_template(self, messages, **_):
            return messages[-1]["content"]

    for tokenizer, fault in ((Single(), "one message only"), (Forgetful(), "leaves out the first attempt")):
        with pytest.raises(ValueError, match=f"^--data.apply_chat_template: .*{fault}"):
            words_between(AttemptOptions(), PromptOptions(apply_chat_template=True), tokenizer)


def test_an_end_of_message_is_not_written_twice():
    assert joined([5, 6, 9], [9, 1, 2]) == [1, 2]
    assert joined([5, 6], [9, 1, 2]) == [9, 1, 2], "a cut attempt is ended"
    assert joined([], [9]) == [9] and joined([9], []) == []


def test_a_chain_goes_on_behind_no_ending():
    assert without_ending([5, 9], ended=True, within_chain=True) == [5]
    assert without_ending([5, 9], ended=False, within_chain=True) == [5, 9], "a cut one has none"
    assert without_ending([5, 9], ended=True, within_chain=False) == [5, 9]


def test_options():
    with pytest.raises(ValueError, match="^instruction is empty"):
        AttemptOptions(instruction=" \n")
    with pytest.raises(ValueError, match="^attempts must be at least 1"):
        AttemptOptions(attempts=0)
    assert set(AttemptOptions(attempts=1).unread("self_correction")) == {"instruction", "within_chain"}
    assert AttemptOptions().unread("self_correction") == {}
