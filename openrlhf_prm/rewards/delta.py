"""Delta: the sum over later steps is bounded, because it telescopes (arXiv:2410.15115)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrlhf_prm.rewards.shaping import RewardShaping

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Delta(RewardShaping):
    """r_k = score_k - score_{k+1} for k < S-1, r_{S-1} = score_{S-1}, r_S = 0, for steps 1..S.

    The return from step k is score_k (plus the outcome), whatever follows, so repeating steps gains nothing. The last
    step, which holds the answer, gets none: the outcome is its reward. One step: 0, the outcome alone. No step: an
    empty tensor.
    """

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        rewards = scores.clone()
        rewards[-1:] = 0.0
        rewards[:-2] -= scores[1:-1]
        return rewards
