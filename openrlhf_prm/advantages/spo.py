"""Segments cut where the policy was unsure, instead of steps cut by text (SPO, arXiv:2505.23564)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.advantages.batch import StepBatch
from openrlhf_prm.advantages.vine import value_differences

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class SPO:
    """A = V(end of segment) - V(start of segment), as `vine`, on the segment's tokens of probability below
    `probability`.

    A segment ends after every `cut_points` tokens that the policy gave less than `probability`: between such tokens
    it had no real choice, so their values cannot differ much (the paper's probability mask). Tokens above the
    threshold get 0; `mask` 0 gives every token its segment's advantage. A response without a low-probability token is
    one segment.

    Whitening as in `vine`, before tokens are masked.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"branch_values", "group", "segments", "token_probabilities"})
    std_norm: bool = True
    probability: float = 0.9
    cut_points: int = 5
    mask: int = 1

    def __post_init__(self):
        if not 0.0 < self.probability <= 1.0:
            raise ValueError(f"--algo.advantage.probability must lie in 0..1, 0 excluded, got {self.probability}")
        if self.cut_points < 1:
            raise ValueError(f"--algo.advantage.cut_points must be at least 1, got {self.cut_points}")

    def __call__(self, batch: StepBatch) -> list[torch.Tensor]:
        """B tensors (T_b,) of advantages."""
        advantages = value_differences(batch, self.std_norm)
        if not self.mask:
            return advantages
        return [
            own * (probabilities < self.probability)
            for own, probabilities in zip(advantages, batch.probabilities, strict=True)
        ]

    def segment_ends(self, probabilities: Sequence[float]) -> list[int]:
        """Token counts at which segments end, for one response; the last one is its length. No token: no segment."""
        low = [index for index, probability in enumerate(probabilities) if probability < self.probability]
        ends = [low[place] + 1 for place in range(self.cut_points - 1, len(low), self.cut_points)]
        if probabilities and (not ends or ends[-1] < len(probabilities)):
            ends.append(len(probabilities))
        return ends
