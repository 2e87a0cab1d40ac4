"""ActPRM and ActPRM-X (arXiv:2504.10559, `Qwen2ForEnsemblePRM`): a mean of small heads at the step token.

The chat of `qwen_prm` with a system message of its own; each step is stripped. With M heads of two hidden layers,

    s = (1/M) sum over m of 1 / (1 + exp(-v_m)),   v_m = w_m . relu( W2_m relu( W1_m h + b1_m ) + b2_m ) + b3_m

The step token is config.json's `rr_token`, or a blank line after a space where that is null. Source: the authors' test
on ProcessBench; the snippet of their card has Qwen's system message (the option `system`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vllm_prm.families.decoding import Rows, sigmoid
from vllm_prm.families.evidence import Checkpoint, Evidence
from vllm_prm.families.prm_family import Head, Question, Rendered
from vllm_prm.families.qwen_prm import QwenPRMFamily, QwenPRMOptions

ARCHITECTURE = "Qwen2ForEnsemblePRM"


@dataclass(frozen=True, kw_only=True)
class EnsemblePRMOptions(QwenPRMOptions):
    """`members`: how many heads; `hidden`: the width of their hidden layers. Config.json and weights show both."""

    system: str | None = (
        "You are a helpful and harmless assistant. You should think step-by-step and put your final answer within "
        "\\boxed{}."
    )
    members: int
    hidden: int = 128


class EnsemblePRMFamily(QwenPRMFamily):
    """The mean of several heads; see the module's formula."""

    name = "ensemble_prm"
    Options = EnsemblePRMOptions
    published = {"ActPRM": {}, "ActPRM-X": {}}

    def __init__(self, tokenizer: Any, **arguments: Any) -> None:
        """As `qwen_prm`; `ValueError` for fewer than one head."""
        super().__init__(tokenizer, **arguments)
        if self.options.members < 1 or self.options.hidden < 1:
            raise ValueError(f"{self.path}: members and hidden must be 1 or more")
        self.head = Head(
            tuple(f"score.model.{layer}" for layer in ("nn1", "nn2", "nn_out")),
            outputs=self.options.members,
            bias=True,
            members=self.options.members,
            hidden=self.options.hidden,
            ignored=("score.reg_model.",),  # where the heads began, for the loss of their training
        )

    @classmethod
    def evidence(cls, checkpoint: Checkpoint) -> Evidence | None:
        if ARCHITECTURE in checkpoint.architectures:
            return Evidence(f"architectures is {checkpoint.architectures}", decisive=True)
        return super(QwenPRMFamily, cls).evidence(checkpoint)

    @classmethod
    def is_anothers(cls, checkpoint: Checkpoint) -> bool:
        """Nobody else's has its name."""
        return False

    @classmethod
    def seen_options(cls, checkpoint: Checkpoint, given: Mapping[str, Any]) -> dict[str, Any]:
        """Step token and heads, from config.json and the weights. `ValueError` if neither tells how many heads."""
        seen: dict[str, Any] = {}
        if "rr_token" in checkpoint.config:
            seen["step_token"] = checkpoint.config["rr_token"] or " \n\n"
        shape = checkpoint.weights.get("score.model.nn1.weight")
        if shape:
            seen |= {"members": shape[0], "hidden": shape[2]}
        elif "num_ensemble" in checkpoint.config:
            seen["members"] = checkpoint.config["num_ensemble"]
        elif "members" not in given:
            raise ValueError(f"neither weights nor config.json of {checkpoint.path} tell the number of heads (members)")
        return seen

    def render(self, question: Question, steps: Sequence[str]) -> Rendered:
        """As `qwen_prm`, with white space around the steps dropped."""
        return super().render(question, steps if isinstance(steps, str) else [step.strip() for step in steps])

    def decode(self, raw: Rows) -> list[float]:
        """Mean over the heads: (S, M) -> S."""
        return [sum(map(sigmoid, row)) / len(row) for row in self._of_all(raw)]

    def _of_all(self, raw: Rows) -> Rows:
        if wrong := [len(row) for row in raw if len(row) != self.options.members]:
            raise ValueError(f"expected {self.options.members} numbers per step, got {wrong[0]}")
        return raw
