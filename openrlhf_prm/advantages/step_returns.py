"""Step returns as advantages: process rewards that already compare, needing no further baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.advantages.estimator import AdvantageEstimator, EstimatorNeed, StepBatch
from openrlhf_prm.advantages.tensors import discounted, spread_over_tokens
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class StepReturns(AdvantageEstimator):
    """A_k = sum_{l >= k} lambd^(l-k) r_l + R - mean_group(R), for process rewards r and outcome reward R; no critic.

    With the `potential` shaping and lambd 0, r_k = V(s_{k+1}) - V(s_k) with the PRM's score as value: the advantage
    of VinePPO (arXiv:2410.01679) with the PRM in place of its rollouts. Scores must then be values, so train the PRM
    on soft labels: with them a step that changes nothing gets nothing. A baseline over the group would make such a
    step look better than a useful one that is sometimes wrong, and filler would grow.

    The first step's return is compared with the group's mean first return, because what a question was worth before
    any step is known only from its responses (this cancels the shaping's `initial`). Every token of a step gets the
    step's advantage. `lambd` in 0..1 is the host's `--algo.advantage.lambd`, default 1. A group of one has no
    first-step advantage.
    """

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset({EstimatorNeed.STEP_REWARDS, EstimatorNeed.GROUP})
    lambd: float = option(1.0, "credit for what later steps did; the host's flag", least=0, most=1)

    def __call__(self, batch: StepBatch) -> list[torch.Tensor]:
        """B tensors (T_b,) of advantages."""
        outcomes = batch.outcome_rewards.reshape(-1, batch.group_size)
        outcomes = (outcomes - outcomes.mean(-1, keepdim=True)).reshape(-1)
        returns = [discounted(rewards, self.lambd) for rewards in batch.process_rewards]
        advantages = []
        for start in range(0, len(returns), batch.group_size):
            group = returns[start : start + batch.group_size]
            first = sum(steps[0] for steps in group) / len(group)
            for steps, outcome in zip(group, outcomes[start : start + batch.group_size], strict=True):
                compared = steps.clone()
                compared[0] -= first
                advantages.append(compared + outcome)
        return [spread_over_tokens(steps, ends) for steps, ends in zip(advantages, batch.step_ends, strict=True)]
