"""`--length_penalty.kind penalty.py:PerToken`: every token of a right answer beyond a free allowance costs the same."""

from dataclasses import dataclass

from openrlhf_prm.length_penalties.penalty import LengthPenalty
from openrlhf_prm.options import option


@dataclass(frozen=True, kw_only=True)
class PerToken(LengthPenalty):
    """-price * max(length - free, 0) for correct responses, 0 for wrong ones."""

    price: float = option(0.001, "what a token costs", above=0)
    free: int = option(0, "tokens that cost nothing", least=0)

    def __call__(self, batch):
        """A `LengthBatch` of B responses -> (B,), added to their outcome rewards."""
        return -self.price * (batch.lengths.float() - self.free).clamp(min=0) * batch.correct
