"""Process and outcome returns with a leave-one-out baseline each (PRIME, arXiv:2502.01456)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.advantages.estimator import AdvantageEstimator, EstimatorNeed, StepBatch
from openrlhf_prm.advantages.tensors import discounted, mean_of_others, spread_over_tokens, whitened
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

    `baseline` "paper" (the default) is that formula. "code" is what the authors' program computes: it multiplies
    rewards by n / (n - 1) and subtracts the group's sum of mean rewards over n - 1, which adds
    sum_{l >= k} (r_l - mean_i) / (n - 1), mean_i being the response's own mean. Both charge a response for its length
    or pay for it; "response" subtracts the mean of the others' whole process returns once, and its expected gradient
    is that of the rewards (without whitening).

    `return_norm` divides process rewards by the largest absolute return in the batch first (over all tokens or steps,
    plus 1e-6), as the authors' program does by default (`batch_norm`) and the paper does not say.
    """

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset({EstimatorNeed.STEP_REWARDS, EstimatorNeed.GROUP})
    std_norm: bool = option(True, "divide by the deviation; the host's --algo.advantage.no_std_norm")
    baseline: str = option("paper", "what of the others' rewards is taken off", choices=("paper", "code", "response"))
    return_norm: bool = option(False, "divide process rewards by the batch's largest absolute process return")

    @property
    def unbiased(self) -> bool:
        return self.baseline == "response" and not self.std_norm and not self.return_norm

    @property
    def rescales_process_rewards(self) -> str:
        return "--algo.advantage.return_norm" if self.return_norm else ""

    def __call__(self, batch: StepBatch) -> list[torch.Tensor]:
        """B tensors (T_b,) of advantages."""
        import torch

        process = batch.process_rewards
        if self.return_norm:
            largest = torch.cat([discounted(rewards, 1.0) for rewards in process]).abs().max() + 1e-6
            process = [rewards / largest for rewards in process]
        means = torch.stack([rewards.mean() if len(rewards) else rewards.sum() for rewards in process])
        totals = mean_of_others(torch.stack([rewards.sum() for rewards in process]), batch.group_size)
        baselines = mean_of_others(means, batch.group_size)
        outcomes = batch.outcome_rewards - mean_of_others(batch.outcome_rewards, batch.group_size)
        sizes = [len(places) for places in batch.groups for _ in places]
        advantages = []
        for place, (rewards, ends) in enumerate(zip(process, batch.step_ends, strict=True)):
            if self.baseline == "response":
                returns = discounted(rewards, 1.0) - totals[place]
            else:
                compared = rewards - baselines[place]
                if self.baseline == "code":
                    compared = compared + (rewards - means[place]) / max(sizes[place] - 1, 1)
                returns = compared.flip(0).cumsum(0).flip(0)
            advantages.append(spread_over_tokens(returns + outcomes[place], ends))
        return whitened(advantages, [True] * len(advantages), batch.credited) if self.std_norm else advantages
