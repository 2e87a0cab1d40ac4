"""A price on tokens that rises with the share of solved responses: ALP (arXiv:2506.05256)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.length_penalties.penalty import LengthBatch, LengthPenalty, PenaltyNeed
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ALP(LengthPenalty):
    """-max(p, 1 / G) * length / max_tokens, with p the share of right responses among the question's G.

    Easy questions pay the whole price for a token, unsolved ones 1 / G of it; right and wrong responses pay alike. The
    paper's beta is `--length_penalty.coef`, and `max_tokens` its normalising constant, whose value could not be found:
    the two only act together. A group of one pays the whole price whether it is right or wrong. Equal lengths pay the
    same, which a group baseline removes.
    """

    needs: ClassVar[frozenset[PenaltyNeed]] = frozenset({PenaltyNeed.GROUP})
    max_tokens: int = option(
        1024, "tokens of a response that pays the whole price; a run's default is its generation limit", least=1
    )

    @classmethod
    def fitted(cls, limit: int) -> dict[str, object]:
        return {"max_tokens": limit}

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        solved = batch.correct.float().reshape(-1, batch.group_size).mean(-1)
        price = solved.clamp(min=1 / batch.group_size).repeat_interleave(batch.group_size)
        return -price * batch.lengths.float() / self.max_tokens
