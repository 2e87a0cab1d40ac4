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
    it had no real choice, so their values cannot differ much. Probabilities are those of the distribution that was
    sampled from, after temperature, top-p and top-k. With `mask` (the paper's probability mask) tokens above the
    threshold get 0, and neither the deviation of `vine`'s whitening nor the mean of the loss counts them, as in the
    authors' code; without it every token gets its segment's advantage, and all count. A response without a
    low-probability token is one segment, and with `mask` trains nothing.

    Another method of that name is Single-stream Policy Optimization (arXiv:2509.13232).
    """

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset(
        {EstimatorNeed.BRANCH_VALUES, EstimatorNeed.GROUP, EstimatorNeed.SEGMENTS}
    )
    std_norm: bool = option(True, "divide by the deviation; the host's --algo.advantage.no_std_norm")
    probability: float = option(0.9, "a token below it was a choice", above=0, most=1)
    cut_points: int = option(5, "choices per segment", least=1)
    mask: bool = option(True, "no advantage for tokens that were no choice")

    @property
    def unbiased(self) -> bool:
        return not self.std_norm and not self.mask

    def __call__(self, batch: StepBatch) -> list[torch.Tensor]:
        """B tensors (T_b,) of advantages."""
        masks = self.trained_tokens(batch)
        advantages = value_differences(batch, self.std_norm, masks)
        if masks is None:
            return advantages
        return [tokens * mask for tokens, mask in zip(advantages, masks, strict=True)]

    def trained_tokens(self, batch: StepBatch) -> list[torch.Tensor] | None:
        """Where there was a choice, with `mask`."""
        return [row < self.probability for row in batch.probabilities] if self.mask else None

    def segment_ends(self, probabilities: Sequence[float]) -> list[int]:
        """Token counts at which segments end, for one response; the last one is its length. No token: no segment."""
        low = [index for index, probability in enumerate(probabilities) if probability < self.probability]
        ends = [low[place] + 1 for place in range(self.cut_points - 1, len(low), self.cut_points)]
        if probabilities and (not ends or ends[-1] < len(probabilities)):
            ends.append(len(probabilities))
        return ends
