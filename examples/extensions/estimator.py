"""`--algo.advantage.estimator estimator.py:BestOfGroup`: every step is compared with the best response of its group."""

from dataclasses import dataclass
from typing import ClassVar

from openrlhf_prm.advantages.estimator import AdvantageEstimator, EstimatorNeed
from openrlhf_prm.advantages.tensors import discounted, spread_over_tokens
from openrlhf_prm.options import option


@dataclass(frozen=True, kw_only=True)
class BestOfGroup(AdvantageEstimator):
    """A_k = G_k - max over the group of G_1, with G_k = R + sum_{l >= k} decay^(l-k) r_l."""

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset({EstimatorNeed.STEP_REWARDS, EstimatorNeed.GROUP})
    decay: float = option(1.0, "credit for what later steps did", least=0, most=1)

    def __call__(self, batch):
        """A `StepBatch` of B responses -> B tensors (T_b,) of advantages."""
        rows = zip(batch.process_rewards, batch.outcome_rewards, strict=True)
        returns = [discounted(rewards, self.decay) + outcome for rewards, outcome in rows]
        advantages = []
        for places in batch.groups:
            group = [returns[place] for place in places]
            best = max((float(steps[0]) for steps in group if len(steps)), default=0.0)
            advantages += [steps - best for steps in group]
        return [spread_over_tokens(steps, ends) for steps, ends in zip(advantages, batch.step_ends, strict=True)]
