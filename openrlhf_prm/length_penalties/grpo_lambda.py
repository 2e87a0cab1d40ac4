"""Length counts only where the policy is good already: GRPO-lambda (arXiv:2505.18086)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.length_penalties.batch import LengthBatch

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class GRPOLambda:
    """-alpha * sigmoid((length - mean) / std) for correct responses of the most correct groups, 0 for all others.

    Mean and standard deviation are over the group's correct responses. The groups are those of the batch ranked by
    their share of correct responses: the first `share` of them, rounded and at least one, ties in order, none without a
    correct response. Everywhere else the reward stays 0/1, which is what keeps accuracy from collapsing while lengths
    fall. `share` and `alpha` are our choice: the paper's values were not found. Equal lengths and single correct
    responses get -alpha / 2, the same for all, which a group baseline removes.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"group"})
    alpha: float = 0.2
    share: float = 0.2

    def __post_init__(self):
        if not self.alpha > 0:
            raise ValueError(f"--length_penalty.alpha must be above 0, got {self.alpha}")
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"--length_penalty.share must lie in 0..1, 0 excluded, got {self.share}")

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        lengths = batch.lengths.float().reshape(-1, batch.group_size)
        correct = batch.correct.reshape(-1, batch.group_size)
        accuracy = correct.float().mean(-1)
        penalties = lengths.new_zeros(lengths.shape)
        chosen = max(round(len(accuracy) * self.share), 1)
        for group in accuracy.argsort(descending=True, stable=True)[:chosen]:
            own = lengths[group][correct[group]]
            if len(own):
                deviations = own - own.mean()
                scale = deviations.pow(2).mean().sqrt() + 1e-9
                penalties[group, correct[group]] = -self.alpha * (deviations / scale).sigmoid()
        return penalties.reshape(-1)
