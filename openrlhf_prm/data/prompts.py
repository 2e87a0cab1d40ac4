"""A question -> the text that a policy reads, and whether that leaves room for a response."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from openrlhf_prm.data.questions import Question
from openrlhf_prm.options import Options, option


class QuestionTooLong(ValueError):
    """A question leaves no room for a response in the policy's context."""


@dataclass(frozen=True, kw_only=True)
class PromptOptions(Options):
    """What stands around a question: first the template, then the chat's markup."""

    input_template: str = option("{}", "text in which {} is replaced by the question")
    apply_chat_template: bool = option(False, "send the question through the policy's chat template")

    def __post_init__(self) -> None:
        super().__post_init__()
        if "{}" not in self.input_template:
            raise ValueError(f"input_template has no {{}} for the question: {self.input_template!r}")

    def around(self, question: str) -> str:
        """The question in the template."""
        return self.input_template.replace("{}", question)


def prompt_maker(options: PromptOptions, tokenizer: Any) -> Callable[[str], str]:
    """The function from a question to the text that the policy of this tokenizer reads."""

    def chat(question: str) -> str:
        messages = [{"role": "user", "content": options.around(question)}]
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    return chat if options.apply_chat_template else options.around


def check_lengths(
    questions: Iterable[Question], prompt_of: Callable[[str], str], tokenizer: Any, context: int | None
) -> None:
    """Raises QuestionTooLong naming the first question without room for a response in `context` tokens; None is no
    limit.
    """
    if context is None:
        return
    for question in questions:
        length = len(tokenizer(prompt_of(question.question), add_special_tokens=False)["input_ids"])
        if length >= context:
            raise QuestionTooLong(
                f"--data.input: question {question.id} ({question.question[:40]!r}...) has {length} tokens, "
                f"the policy's context is {context}"
            )
