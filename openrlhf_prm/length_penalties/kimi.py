"""Kimi k1.5's length reward (arXiv:2501.12599, section 2.3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.length_penalties.penalty import LengthBatch, LengthPenalty, PenaltyNeed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Kimi(LengthPenalty):
    """lambda = 0.5 - (length - min) / (max - min) within the group; correct: lambda, wrong: min(0, lambda).

    Shorter correct responses gain up to 0.5, the longest lose 0.5; a wrong response can only lose. 0 where all
    responses of a group are equally long, so also for groups of one. The paper switches it on
    after a warm-up: `--length_penalty.warmup_steps`.
    """

    needs: ClassVar[frozenset[PenaltyNeed]] = frozenset({PenaltyNeed.GROUP})

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        groups = batch.lengths.float().reshape(-1, batch.group_size)
        shortest, longest = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        rank = 0.5 - (groups - shortest) / (longest - shortest).clamp(min=1.0)
        rank = (rank * (longest > shortest)).reshape(-1)
        return rank.where(batch.correct, rank.clamp(max=0.0))
