"""Clip: steps can only lose (arXiv:2410.15115)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrlhf_prm.options import option
from openrlhf_prm.rewards.shaping import RewardShaping

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Clip(RewardShaping):
    """r_k = min(score_k - eta, 0).

    No step earns more than 0, so adding steps gains nothing; what remains to hack is to write fewer steps, which
    `clip_delta` removes. `eta` is on the scale of the scores given (signed: 0 is p = 0.5); the paper asks for a value
    that leaves most steps at 0 and gives none, so the default is the PRM's own borderline between good and bad (with
    `--process_reward.score_scale probability` that is 0.5, and at 0 every reward is 0). All scores above eta: all
    rewards 0. No step: an empty tensor.
    """

    eta: float = option(0.0, "scores above it earn nothing, on the scale of the scores")

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        return (scores - self.eta).clamp(max=0.0)
