"""Length controlled by the prompt: L1 / LCPO (arXiv:2503.04697).

The target n* of each question is drawn once, uniformly from `target_min`..`target_max`, and stated in the prompt by
`target_template`, whose {} it fills; `openrlhf_prm.length_penalties.targets` writes it and reads it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.length_penalties.penalty import LengthBatch, LengthPenalty, PenaltyNeed
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class TargetPenalty(LengthPenalty):
    """Base of penalties that need TARGETS: what is drawn and how the prompt states it."""

    needs: ClassVar[frozenset[PenaltyNeed]] = frozenset({PenaltyNeed.TARGETS})
    alpha: float = option(0.0003, "price of a token off the target", above=0)
    target_min: int = option(100, "smallest target that is drawn")
    target_max: int = option(4000, "largest target that is drawn")
    target_template: str = option("Think for {} tokens.", "sentence that states the target in the prompt")

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.target_min <= self.target_max:
            raise ValueError(f"target_min must lie in 1..target_max ({self.target_max}), got {self.target_min}")
        if self.target_template.count("{}") != 1:
            raise ValueError(f"target_template needs {{}} once, got {self.target_template!r}")

    @classmethod
    def fitted(cls, limit: int) -> dict[str, object]:
        return {"target_min": min(100, limit), "target_max": min(4000, limit)}

    def conflict(self, limit: int, samples: int) -> str | None:
        if self.target_max <= limit:
            return None
        return f"target_max {self.target_max} is more than the {limit} tokens that a response may have"

    def _short_by(self, batch: LengthBatch) -> torch.Tensor:
        return batch.targets.float() - batch.lengths.float()


@dataclass(frozen=True, kw_only=True)
class LCPOExact(TargetPenalty):
    """-alpha * |n* - length|, for right and wrong responses alike: outcome plus this is the paper's LCPO-Exact."""

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        return -self.alpha * self._short_by(batch).abs()


@dataclass(frozen=True, kw_only=True)
class LCPOMax(TargetPenalty):
    """Correct: clip(alpha * (n* - length) + 0.5, 0, 1) - 1; wrong: 0. Outcome plus this is the paper's LCPO-Max.

    Half of the reward at exactly n*, all of it when 0.5 / alpha tokens shorter, none when as many longer. The paper
    names the same alpha for both forms as far as could be found. The authors' code has the slope alpha / 2:
    (clip(a * (n* - length), -1, 1) + 1) / 2 is this with alpha = a / 2. Its prompts ask for a maximum, as
    `target_template` does.
    """

    target_template: str = option("Think for maximum {} tokens.", "sentence that states the target in the prompt")

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        return ((self.alpha * self._short_by(batch) + 0.5).clamp(0.0, 1.0) - 1) * batch.correct
