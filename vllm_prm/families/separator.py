"""Families that score a step where its separator ends, and encode step and separator apart.

    [BOS] + encode(question + question_suffix) + sum over steps of ( encode(step) + encode(separator) )

A suffix of the question belongs to the text that it goes over into: it is encoded with the first step.

The step is scored at the last token of its separator. Encoded together, the end of a step and its separator would often
become one token (`.` and a blank line do in the vocabularies of Llama 3 and Qwen), which no PRM was trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm_prm.families.checkpoint_family import CheckpointFamily, bos_ids, require_list
from vllm_prm.families.prm_family import Question, Rendered


@dataclass(frozen=True, kw_only=True)
class SeparatorOptions:
    """`bos`: begin with BOS; None: if the tokenizer has one and no chat template is written. `chat_template`: the
    question goes through the tokenizer's template."""

    separator: str = "\n"
    question_suffix: str = ""
    bos: bool | None = None
    chat_template: bool = False


class SeparatorFamily(CheckpointFamily):
    """Rendering shared by PRMs with a separator; see the module's formula."""

    Options = SeparatorOptions

    def __init__(self, tokenizer: Any, **arguments: Any) -> None:
        """`ValueError` for a separator without tokens, or a BOS that is wanted and not there."""
        super().__init__(tokenizer, **arguments)
        self.separator_ids = tokenizer.encode(self.options.separator, add_special_tokens=False)
        if not self.separator_ids or tokenizer.unk_token_id in self.separator_ids:
            raise ValueError(
                f"the tokenizer of {self.path} cannot write the separator {self.options.separator!r} "
                f"(it is encoded as {self.separator_ids})"
            )
        wanted = False if self.options.bos is None and self.options.chat_template else self.options.bos
        self.bos = bos_ids(tokenizer, wanted, self.path)

    def tags(self) -> Sequence[str]:
        return (self.options.separator,)

    def render(self, question: Question, steps: Sequence[str]) -> Rendered:
        """Tokens and the positions where separators end, see the module's formula. A step of no characters still gets
        its separator. A separator inside a step is text like any other and gets no position."""
        require_list(steps)
        options = self.options
        writer = self.begun(question, bos=self.bos, suffix=options.question_suffix, chat=options.chat_template)
        for number, step in enumerate(steps, start=1):
            if number > 1 or not options.question_suffix:
                writer.separate()
            writer.content(step)
            writer.ids(self.separator_ids)
            writer.mark()
        return writer.rendered()
