"""Sample more, train on the shortest: GFPO (arXiv:2508.09726)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.length_penalties.penalty import LengthBatch, LengthPenalty, PenaltyNeed
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class GFPO(LengthPenalty):
    """Trains on the best round(G * `keep`) of a question's responses, at least one, and leaves the others out; no
    penalty.

    "length" ranks by tokens, right and wrong alike; "efficiency" by reward per token, 1[right] / length, so the
    shortest right ones come first and wrong ones in the order in which they were sampled. With `group_norm` the
    advantages are the paper's, (R - mean) / deviation over those kept, which are all that the loss counts; the paper
    divides by the tokens of the others too. Selection shortens by what is learned from, not by what is paid: a short
    wrong response still loses. Equal ranks keep the first; `keep` 1 or a group of one leaves out nobody. Kept responses
    that agree have no gradient, as in any group. The form that keeps more of hard questions is not here: its rule could
    not be found.
    """

    needs: ClassVar[frozenset[PenaltyNeed]] = frozenset({PenaltyNeed.GROUP})
    pays: ClassVar[bool] = False
    keep: float = option(0.5, "share of a question's responses that are trained on", above=0, most=1)
    metric: str = option("length", "which responses are kept: short ones, or those with the most reward per token",
                         choices=("length", "efficiency"))  # fmt: skip

    def conflict(self, limit: int, samples: int) -> str | None:
        if max(1, round(samples * self.keep)) < samples:
            return None
        return f"keep {self.keep:g} drops nothing of --rollout.n_samples_per_prompt {samples}"

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        return batch.lengths.float() * 0

    def kept(self, batch: LengthBatch) -> torch.Tensor:
        lengths = batch.lengths.float()
        cost = lengths if self.metric == "length" else -batch.correct.float() / lengths.clamp(min=1.0)
        order = cost.reshape(-1, batch.group_size).argsort(dim=-1, stable=True)
        rank = order.argsort(-1)
        return (rank < max(1, round(batch.group_size * self.keep))).reshape(-1)
