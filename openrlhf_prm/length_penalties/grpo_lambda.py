"""Length counts only where the policy is good already: GRPO-lambda (arXiv:2505.18086)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.length_penalties.penalty import LengthBatch, LengthPenalty, PenaltyNeed
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class GRPOLambda(LengthPenalty):
    """-alpha * sigmoid((length - mean) / std) for correct responses of the most correct groups, 0 for all others.

    Mean and standard deviation are over the group's correct responses. The groups are those of the batch ranked by
    their share of correct responses: the first `share` of them, rounded and at least one, ties in order, none without a
    correct response. Everywhere else the reward stays 0/1, which is what keeps accuracy from collapsing while lengths
    fall. `share` and `alpha` are our choice: the paper's values were not found. Equal lengths and single correct
    responses get -alpha / 2, the same for all, which a group baseline removes.

    Other methods of that name: learnable token preferences (lambda-GRPO, arXiv:2510.06870), and the correction of
    GRPO's hidden process rewards (arXiv:2509.21154).
    """

    needs: ClassVar[frozenset[PenaltyNeed]] = frozenset({PenaltyNeed.GROUP})
    alpha: float = option(0.2, "what the longest correct responses pay at most", above=0)
    share: float = option(0.2, "share of the groups, the most correct ones, in which length counts", above=0, most=1)

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        lengths = batch.lengths.float().reshape(-1, batch.group_size)
        correct = batch.correct.reshape(-1, batch.group_size)
        accuracy = correct.float().mean(-1)
        penalties = lengths.new_zeros(lengths.shape)
        chosen = max(round(len(accuracy) * self.share), 1)
        for group in accuracy.argsort(descending=True, stable=True)[:chosen]:
            correct_lengths = lengths[group][correct[group]]
            if len(correct_lengths):
                deviations = correct_lengths - correct_lengths.mean()
                scale = deviations.pow(2).mean().sqrt() + 1e-9
                penalties[group, correct[group]] = -self.alpha * (deviations / scale).sigmoid()
        return penalties.reshape(-1)
