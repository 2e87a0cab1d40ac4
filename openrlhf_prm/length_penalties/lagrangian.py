"""A price on tokens that holds a mean length: the Lagrangian of "best reward at mean length <= target"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.length_penalties.penalty import LengthBatch, LengthPenalty, PenaltyNeed
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Lagrangian(LengthPenalty):
    """-m * (length / target - 1) with the multiplier m of this batch; then m += w * rate * (mean length / target - 1).

    m is raised while responses are longer than `target` tokens on average and lowered otherwise, kept within
    `min_multiplier`..`max_multiplier`. With the default `min_multiplier` 0 lengths are held down, never up; a negative
    one also lengthens, so that the mean settles at the target from below. m is the penalty's state and starts at
    `initial`; at m = 0 every penalty is 0. w, in 0..1, is the warm-up's weight: m does not move while it has no say.
    """

    needs: ClassVar[frozenset[PenaltyNeed]] = frozenset({PenaltyNeed.STATE})
    target: int = option(512, "mean length that is held", least=1)
    rate: float = option(0.1, "how fast the multiplier follows the excess", above=0)
    initial: float = option(0.0, "the multiplier of the first batch")
    min_multiplier: float = option(0.0, "smallest multiplier; a negative one also lengthens")
    max_multiplier: float = option(1.0, "largest multiplier")

    def __post_init__(self):
        super().__post_init__()
        if not self.min_multiplier <= self.initial <= self.max_multiplier:
            raise ValueError(
                f"initial must lie in min_multiplier..max_multiplier "
                f"({self.min_multiplier}..{self.max_multiplier}), got {self.initial}"
            )

    def conflict(self, limit: int, samples: int) -> str | None:
        if self.target < limit or self.min_multiplier < 0 or self.initial > 0:
            return None
        return f"target {self.target} is not below the {limit} tokens that a response may have: its price stays 0"

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        excess = batch.lengths.float() / self.target - 1
        multiplier = batch.state.setdefault("multiplier", self.initial)
        raised = multiplier + batch.warm_up * self.rate * float(excess.mean())
        batch.state["multiplier"] = min(max(raised, self.min_multiplier), self.max_multiplier)
        return -multiplier * excess
