"""Potential form whose last value is the verified outcome: the PRM as a critic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.options import option
from openrlhf_prm.rewards.potential import Potential
from openrlhf_prm.rewards.shaping import RewardShaping, ShapingNeed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class VerifiedPotential(RewardShaping):
    """r_k = V_k - V_{k-1} with V_k the step score as a probability, V_0 = `initial`, and V_S = 1[correct].

    These are the temporal differences of an actor-critic whose critic is the PRM and whose reward is the outcome, so
    `step_group` with `--algo.advantage.lambd` gives them the credit that GAE (arXiv:1506.02438) gives. The PRM never
    judges the last step, where the verifier knows the truth: with `potential` a policy learns to stop early wherever
    the PRM fails to see that an operand, a case or a check is missing, because an end risks nothing more. All rewards
    of a response sum to 1[correct] - initial, so `--process_reward.outcome_coef` may be small. One step: the outcome
    less `initial`. No step: an empty tensor.
    """

    needs: ClassVar[frozenset[ShapingNeed]] = frozenset({ShapingNeed.GROUP, ShapingNeed.PROBABILITY})
    initial: float = option(1.0, "value before the first step, as a probability")

    def __call__(self, scores: list[torch.Tensor], correct: torch.Tensor) -> list[torch.Tensor]:
        potential = Potential(initial=self.initial)
        values = [steps.clone() for steps in scores]
        for steps, verdict in zip(values, correct, strict=True):
            steps[-1:] = float(verdict)
        return [potential(steps) for steps in values]
