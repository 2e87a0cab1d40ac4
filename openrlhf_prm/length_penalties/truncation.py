"""Too long is wrong: the penalty of DLER (arXiv:2510.15110)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.length_penalties.penalty import LengthBatch, LengthPenalty, PenaltyNeed
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
    under a hard limit the deviation of a group is noise. The host's dynamic filtering looks at outcomes without this
    penalty, so its range must let groups that are all right pass. All responses short enough: 0.
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


@dataclass(frozen=True, kw_only=True)
class TruncationDifficulty(Truncation):
    """`truncation` with a lower limit for easy questions: DA-DLER, section 3.5.

    A question is easy where a share of at least `easy_from` of its responses is right within `max_tokens`; there the
    limit is `easy_max_tokens`. The authors go on with it for 150 updates from a model that `truncation` has trained,
    with 4000 and 2000 tokens. On which side a share of exactly `easy_from` falls they do not say. More levels than two,
    which the paper allows for, are not here. A group of one is easy where it is right, and then wrong above the lower
    limit.
    """

    needs: ClassVar[frozenset[PenaltyNeed]] = frozenset({PenaltyNeed.GROUP})
    max_tokens: int = option(
        1024, "the longest right response to a hard question; a run's default is its generation limit", least=1
    )
    easy_max_tokens: int = option(512, "the same for an easy one; a run's default is half its limit", least=1)
    easy_from: float = option(0.5, "share of right responses from which a question is easy", above=0, most=1)

    @classmethod
    def fitted(cls, limit: int) -> dict[str, object]:
        return {"max_tokens": limit, "easy_max_tokens": max(limit // 2, 1)}

    def conflict(self, limit: int, samples: int) -> str | None:
        if self.easy_max_tokens < min(self.max_tokens, limit):
            return None
        return (
            f"easy_max_tokens {self.easy_max_tokens} is not below max_tokens and the {limit} tokens that a response "
            "may have"
        )

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        right = (batch.correct & (batch.lengths <= self.max_tokens)).reshape(-1, batch.group_size)
        easy = (right.float().mean(-1) >= self.easy_from).repeat_interleave(batch.group_size)
        limits = batch.lengths.new_full(batch.lengths.shape, self.max_tokens)
        return -(batch.correct & (batch.lengths > limits.masked_fill(easy, self.easy_max_tokens))).float()
