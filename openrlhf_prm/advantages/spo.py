"""Segments cut where the policy was unsure, instead of steps cut by text (SPO, arXiv:2505.23564)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.advantages.estimator import AdvantageEstimator, EstimatorNeed, StepBatch
from openrlhf_prm.advantages.vine import value_differences
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class SPO(AdvantageEstimator):
    """A = V(end of segment) - V(start of segment), as `vine`, on the segment's tokens of probability below
    `probability`.

    A segment ends after every `cut_points` tokens that the policy gave less than `probability`: between such tokens
    it had no real choice, so their values cannot differ much (the paper's probability mask). Tokens above the
    threshold get 0; without `mask` every token gets its segment's advantage. A response without a low-probability token
    is one segment.

    Whitening as in `vine`, before tokens are masked.
    """

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset(
        {EstimatorNeed.BRANCH_VALUES, EstimatorNeed.GROUP, EstimatorNeed.SEGMENTS}
    )
    std_norm: bool = option(True, "divide by the deviation; the host's --algo.advantage.no_std_norm")
    probability: float = option(0.9, "a token below it was a choice", above=0, most=1)
    cut_points: int = option(5, "choices per segment", least=1)
    mask: bool = option(True, "no advantage for tokens that were no choice")

    def __call__(self, batch: StepBatch) -> list[torch.Tensor]:
        """B tensors (T_b,) of advantages."""
        advantages = value_differences(batch, self.std_norm)
        if not self.mask:
            return advantages
        return [
            tokens * (probabilities < self.probability)
            for tokens, probabilities in zip(advantages, batch.probabilities, strict=True)
        ]

    def segment_ends(self, probabilities: Sequence[float]) -> list[int]:
        """Token counts at which segments end, for one response; the last one is its length. No token: no segment."""
        low = [index for index, probability in enumerate(probabilities) if probability < self.probability]
        ends = [low[place] + 1 for place in range(self.cut_points - 1, len(low), self.cut_points)]
        if probabilities and (not ends or ends[-1] < len(probabilities)):
            ends.append(len(probabilities))
        return ends
