"""Step returns as advantages: process rewards that already compare, needing no further baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.advantages.estimator import AdvantageEstimator, EstimatorNeed, StepBatch
from openrlhf_prm.advantages.tensors import discounted, mean_of_others, spread_over_tokens
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class StepReturns(AdvantageEstimator):
    """A_k = sum_{l >= k} lambd^(l-k) r_l + R - mean of the others' R, for process rewards r and outcome reward R; no
    critic.

    With the `potential` shaping and lambd 0, r_k = V(s_{k+1}) - V(s_k) with the PRM's score as value: the advantage
    of VinePPO (arXiv:2410.01679) with the PRM in place of its rollouts. Scores must then be values, so train the PRM
    on soft labels: with them a step that changes nothing gets nothing. A baseline over the group would make such a
    step look better than a useful one that is sometimes wrong, and filler would grow.

    The first step's return is compared with the mean first return of the group's other responses, because what a
    question was worth before any step is known only from its responses (this cancels the shaping's `initial`). With the
    response itself in those means, outcomes would be shrunk and process rewards not: in small groups inner steps could
    get the wrong sign. Every token of a step gets the step's advantage. `lambd` in 0..1 is the host's
    `--algo.advantage.lambd`, default 1. With one step per response this is the host's `rloo`. A group of one is
    compared with nothing.
    """

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset({EstimatorNeed.STEP_REWARDS, EstimatorNeed.GROUP})
    lambd: float = option(1.0, "credit for what later steps did; the host's flag", least=0, most=1)

    @property
    def unbiased(self) -> bool:
        return self.lambd == 1.0

    def __call__(self, batch: StepBatch) -> list[torch.Tensor]:
        """B tensors (T_b,) of advantages."""
        import torch

        outcomes = batch.outcome_rewards - mean_of_others(batch.outcome_rewards, batch.group_size)
        returns = [discounted(rewards, self.lambd) for rewards in batch.process_rewards]
        first = torch.stack([steps[0] if len(steps) else steps.new_zeros(()) for steps in returns])
        before = mean_of_others(first, batch.group_size)
        advantages = []
        for steps, outcome, baseline, ends in zip(returns, outcomes, before, batch.step_ends, strict=True):
            compared = steps + outcome
            compared[:1] -= baseline
            advantages.append(spread_over_tokens(compared, ends))
        return advantages
