"""Families that score a step where its separator ends, and encode step and separator apart, see `marked_steps`.

The step is scored at the last token of its separator. Encoded together, the end of a step and its separator would often
become one token (`.` and a blank line do in the vocabularies of Llama 3 and Qwen), which no PRM was trained on.
"""

from dataclasses import dataclass
from typing import Any

from vllm_prm.families.checkpoint_family import bos_ids
from vllm_prm.families.marked_steps import MarkedStepsFamily, MarkedStepsOptions


@dataclass(frozen=True, kw_only=True)
class SeparatorOptions(MarkedStepsOptions):
    """`bos`: begin with BOS; None: if the tokenizer has one and no chat template is written."""

    separator: str = "\n"
    bos: bool | None = None


class SeparatorFamily(MarkedStepsFamily):
    """The mark is a separator; see the module."""

    Options = SeparatorOptions

    def __init__(self, tokenizer: Any, **arguments: Any) -> None:
        """`ValueError` for a separator without tokens, or a BOS that is wanted and not there."""
        super().__init__(tokenizer, **arguments)
        options = self.options
        self.mark_ids = tokenizer.encode(options.separator, add_special_tokens=False)
        if not self.mark_ids or tokenizer.unk_token_id in self.mark_ids:
            raise ValueError(
                f"the tokenizer of {self.path} cannot write the separator {options.separator!r} "
                f"(it is encoded as {self.mark_ids})"
            )
        in_chat = options.chat_template or options.user_turn is not None
        self.bos = bos_ids(tokenizer, False if options.bos is None and in_chat else options.bos, self.path)

    @property
    def mark_text(self) -> str:
        """The separator."""
        return self.options.separator
