"""`*ForTokenClassification` models with two classes, as TRL's `PRMTrainer` makes them.

Rendered as in `separator`, by default with a newline as TRL does. With p = softmax(score(h)) at the separator, class 1
being the good one:

    score="probability"   s = p_1             in [0, 1]    TRL
    score="difference"    s = p_1 - p_0       in [-1, 1]   PURE-PRM (arXiv:2504.15275)

TRL's trainer takes any separator and writes it nowhere: only published names tell it. The head is the checkpoint's
`score`, a linear layer with bias. PURE's own sum of a solution, weighted by
softmax(-s / 0.1), is a reward shaping and not done here.
"""

from dataclasses import dataclass
from typing import Literal

from vllm_prm.families.decoding import Rows, class_probabilities
from vllm_prm.families.evidence import Checkpoint, Evidence
from vllm_prm.families.prm_family import Head
from vllm_prm.families.qwen_prm import process_reward_model
from vllm_prm.families.separator import SeparatorFamily, SeparatorOptions


@dataclass(frozen=True, kw_only=True)
class TokenClassificationOptions(SeparatorOptions):
    """`score`: see the module's table."""

    score: Literal["probability", "difference"] = "probability"


class TokenClassificationFamily(SeparatorFamily):
    """Two classes at the separator; see the module's table."""

    name = "token_classification"
    Options = TokenClassificationOptions
    published = {
        "PURE-PRM-7B": {"score": "difference"},
        "Qwen2.5-Math-7B-PRM800K": {"score": "difference"},  # PURE's, not Qwen's of the same name
        "Qwen2.5-Math-1.5B-Instruct-PRM-0.2": {"separator": "\n\n"},
        "Qwen2.5-Math-7B-Instruct-PRM-0.2": {"separator": "\n\n"},
    }
    unseen = ("separator",)
    head = Head(("score",), outputs=2, bias=True)

    @classmethod
    def is_anothers(cls, checkpoint: Checkpoint) -> bool:
        """Qwen's checkpoint of the same name as one of PURE's."""
        return process_reward_model(checkpoint)

    @classmethod
    def evidence(cls, checkpoint: Checkpoint) -> Evidence | None:
        if by_name := super().evidence(checkpoint):
            return by_name
        if named := [name for name in checkpoint.architectures if name.endswith("ForTokenClassification")]:
            return Evidence(f"architectures is {named}; separator and score are TRL's", decisive=True)
        if checkpoint.rows("score.weight") == 2 and "score.bias" in checkpoint.weights:
            return Evidence("its weights have score.weight of two rows, and score.bias")
        return None

    @property
    def score_range(self) -> tuple[float, float]:
        """[-1, 1] for a difference."""
        return (-1.0, 1.0) if self.options.score == "difference" else (0.0, 1.0)

    @property
    def response_splitter(self) -> str:
        """The separator, but for PURE, whose card splits at blank lines and writes newlines."""
        return "\n\n" if self.options.score == "difference" else self.options.separator

    def decode(self, raw: Rows) -> list[float]:
        """(S, 2) -> S; the module's table says which number and in which range."""
        difference = self.options.score == "difference"
        return [good - bad if difference else good for bad, good in class_probabilities(raw, 2)]
