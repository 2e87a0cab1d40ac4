"""Sum form: the step score is the step's reward (Math-Shepherd, arXiv:2312.08935)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrlhf_prm.rewards.shaping import RewardShaping

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class SumForm(RewardShaping):
    """r_k = score_k, so the return from step k is the sum of all later scores.

    A baseline that is known to be hacked: every further step with a positive score raises the return, so repeating
    steps pays. No step: an empty tensor.
    """

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.clone()
