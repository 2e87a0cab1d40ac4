"""Potential form: what a step changed (Ng et al. 1999; the PRM as a value, as in arXiv:2410.08146)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrlhf_prm.options import option
from openrlhf_prm.rewards.shaping import RewardShaping

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Potential(RewardShaping):
    """r_k = score_k - score_{k-1}, with `initial` in place of the score before the first step.

    The rewards telescope: the return from step k is score_S - score_{k-1}, so no sequence of steps gains more than
    its end is worth, and repeating a step gains nothing. A step after the first error gets about 0: it lost nothing
    more. `initial` is on the scale of the scores given (1 means that a question starts out as solvable). No step: an
    empty tensor.
    """

    initial: float = option(1.0, "score before the first step, on the scale of the scores")

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        if len(scores) == 0:
            return scores.clone()
        return scores - scores.roll(1).index_fill(0, scores.new_zeros(1).long(), self.initial)
