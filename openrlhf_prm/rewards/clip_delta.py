"""Clip, then delta: the combination the paper recommends (arXiv:2410.15115)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrlhf_prm.options import option
from openrlhf_prm.rewards.clip import Clip
from openrlhf_prm.rewards.delta import Delta
from openrlhf_prm.rewards.shaping import RewardShaping

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ClipDelta(RewardShaping):
    """Delta of clipped scores: the return from step k < S is min(score_k - eta, 0) plus the outcome.

    Neither more steps (clip) nor fewer steps (delta) gain anything. `eta` as in `clip`. One step: 0. No step: an empty
    tensor.
    """

    eta: float = option(0.0, "scores above it earn nothing, on the scale of the scores")

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        return Delta()(Clip(eta=self.eta)(scores))
