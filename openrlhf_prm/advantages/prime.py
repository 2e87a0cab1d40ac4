"""Process and outcome returns with a leave-one-out baseline each (PRIME, arXiv:2502.01456)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.advantages.estimator import AdvantageEstimator, EstimatorNeed, StepBatch
from openrlhf_prm.advantages.tensors import mean_of_others, spread_over_tokens, whitened
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Prime(AdvantageEstimator):
    """A_k = sum_{l >= k} (r_l - b) + R - mean of the others' R, whitened over the batch unless `std_norm` is False.

    b is the mean over the other responses of their mean reward, per token with token rewards (`--process_reward.shaping
    implicit`) and per step with step rewards; the paper has token rewards. gamma 1; every token of a step gets the
    step's advantage. Responses that agree in everything get 0. With one step per response this is the host's `rloo`
    but for the whitening.
    """

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset({EstimatorNeed.STEP_REWARDS, EstimatorNeed.GROUP})
    std_norm: bool = option(True, "divide by the deviation; the host's --algo.advantage.no_std_norm")

    def __call__(self, batch: StepBatch) -> list[torch.Tensor]:
        """B tensors (T_b,) of advantages."""
        import torch

        means = torch.stack([rewards.mean() for rewards in batch.process_rewards])
        baselines = mean_of_others(means, batch.group_size)
        outcomes = batch.outcome_rewards - mean_of_others(batch.outcome_rewards, batch.group_size)
        rows = zip(batch.process_rewards, batch.step_ends, baselines, outcomes, strict=True)
        advantages = [
            spread_over_tokens((rewards - baseline).flip(0).cumsum(0).flip(0) + outcome, ends)
            for rewards, ends, baseline, outcome in rows
        ]
        return whitened(advantages, [True] * len(advantages)) if self.std_norm else advantages
