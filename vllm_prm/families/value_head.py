"""Any causal-LM backbone with a scalar head: a value, or a reward, per position.

Rendered as in `separator`, with every part of it an option. With v = w . h (+ b) at the step's position, h the
backbone's last hidden state after its final norm:

    score="sigmoid"   s = 1 / (1 + exp(-v))   in [0, 1]
    score="raw"       s = v                   unbounded

PQM (arXiv:2410.11287) is raw, at the token `[PRM]` that its training added, in an instruction of its own; each step is
numbered. Its repository holds weights alone: save the config.json and the tokenizer of its backbone beside them, with
`[PRM]` added to the special tokens and `vocab_size` counting it.

How such a model was trained to read a solution does not show in its checkpoint, so the family is never assumed; name
it, and give the options that differ.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vllm_prm.families.decoding import Rows, scalars, sigmoid
from vllm_prm.families.evidence import Checkpoint, Evidence
from vllm_prm.families.prm_family import Head
from vllm_prm.families.separator import SeparatorFamily, SeparatorOptions

# TRL's value head, and what other trainers call theirs.
KNOWN_HEADS = ("v_head.summary", "v_head", "value_head", "reward_head", "score")

PQM = {
    "separator": " [PRM]",
    "question_prefix": (
        "Below is an instruction that describes a task.\nWrite a response that appropriately completes the request.\n\n"
        "### Instruction:\n"
    ),
    "question_suffix": "\n\n### Response: Let's think step by step\n",
    "step_joint": "\n",
    "number_steps": True,
    "together": True,
    "bos": False,
    "score": "raw",
}


@dataclass(frozen=True, kw_only=True)
class ValueHeadOptions(SeparatorOptions):
    """`head`: the checkpoint's name of the linear layer, without `.weight`; `head_bias`: whether it has a bias. Both
    are read from the weights when left out."""

    head: str
    head_bias: bool
    score: Literal["sigmoid", "raw"] = "sigmoid"


class ValueHeadFamily(SeparatorFamily):
    """A scalar at the separator; see the module's table."""

    name = "value_head"
    Options = ValueHeadOptions
    published = {"PQM": PQM}
    unseen = ("separator",)

    def __init__(self, tokenizer: Any, **arguments: Any) -> None:
        super().__init__(tokenizer, **arguments)
        self.head = Head((self.options.head,), outputs=1, bias=self.options.head_bias)

    @classmethod
    def seen_options(cls, checkpoint: Checkpoint, given: Mapping[str, Any]) -> dict[str, Any]:
        """Name and bias of the head, and what the repository's name tells. `ValueError` if the weights show no scalar
        head, or not which one."""
        seen = super().seen_options(checkpoint, given)
        if {"head", "head_bias"} <= set(given):
            return seen
        heads = [given["head"]] if "head" in given else scalar_heads(checkpoint)
        if len(heads) != 1 or f"{heads[0]}.weight" not in checkpoint.weights:
            raise ValueError(
                f"family {cls.name} needs the options head and head_bias: among the weights of {checkpoint.path} "
                f"there is {heads or 'no layer of one row called ' + ' or '.join(KNOWN_HEADS)}"
            )
        return {**seen, "head": heads[0], "head_bias": f"{heads[0]}.bias" in checkpoint.weights}

    @classmethod
    def evidence(cls, checkpoint: Checkpoint) -> Evidence | None:
        if by_name := super().evidence(checkpoint):
            return by_name
        if heads := scalar_heads(checkpoint):
            return Evidence(f"its weights have a scalar head, {heads}; how it reads a solution does not show")
        return None

    @property
    def score_range(self) -> tuple[float, float]:
        """Unbounded for a raw value."""
        return (-math.inf, math.inf) if self.options.score == "raw" else (0.0, 1.0)

    def decode(self, raw: Rows) -> list[float]:
        """(S, 1) -> S; the module's table says which number and in which range."""
        values = scalars(raw)
        return values if self.options.score == "raw" else [sigmoid(value) for value in values]


def scalar_heads(checkpoint: Checkpoint) -> list[str]:
    """Known names of heads that the checkpoint has with one row."""
    return [name for name in KNOWN_HEADS if checkpoint.rows(f"{name}.weight") == 1]
