"""`--process_reward.shaping shaping.py:FirstMistake`: only the first bad step is charged."""

from dataclasses import dataclass

from openrlhf_prm.options import option
from openrlhf_prm.rewards.shaping import RewardShaping


@dataclass(frozen=True, kw_only=True)
class FirstMistake(RewardShaping):
    """-price for the first step with a score below `threshold`, 0 for all others."""

    threshold: float = option(0.0, "a step with a lower score is a mistake, on the scale of the scores")
    price: float = option(1.0, "what the first mistake costs", above=0)

    def __call__(self, scores):
        """Scores (S,) of one response -> process rewards (S,)."""
        mistakes = scores < self.threshold
        first = mistakes & (mistakes.cumsum(-1) == 1)
        return -self.price * first.float()
