"""Too long is wrong: the penalty of DLER (arXiv:2510.15110)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrlhf_prm.length_penalties.penalty import LengthBatch, LengthPenalty
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Truncation(LengthPenalty):
    """-1 for right responses of more than `max_tokens`, 0 for all others: outcome plus this is 0 from there on, as if
    the response had been cut before its answer.

    The authors generate `max_tokens` and no more, so a response that has not answered by then is wrong by itself; this
    lets the limit be lower than what may be generated, and be changed without changing that. Their point is what goes
    with it: advantages less the group's mean and normalised over the batch's tokens (the host's `reinforce_baseline`,
    but that theirs divides by the deviation of n - 1), a higher upper clip and no groups without variance, because
    under a hard limit the deviation of a group is noise. All responses short
    enough: 0. Their difficulty-aware form is not here: its rule could not be found.
    """

    max_tokens: int = option(1024, "the longest response that may be right; a run's default is half its limit", least=1)

    @classmethod
    def fitted(cls, limit: int) -> dict[str, object]:
        return {"max_tokens": max(limit // 2, 1)}

    def conflict(self, limit: int, samples: int) -> str | None:
        if self.max_tokens < limit:
            return None
        return f"max_tokens {self.max_tokens} is not below the {limit} tokens that a response may have: nobody pays"

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        return -(batch.correct & (batch.lengths > self.max_tokens)).float()
