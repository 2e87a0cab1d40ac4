"""Cosine length reward (arXiv:2502.03373) with a price on repetition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.length_penalties.penalty import LengthBatch, LengthPenalty, PenaltyNeed
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Cosine(LengthPenalty):
    """End + (start - end) / 2 * (1 + cos(pi * length / max_tokens)) less the outcome, and a price on repetition.

    start is the reward at length 0, end at `max_tokens`: correct responses fall from `correct_short` to
    `correct_long`, wrong ones rise from `wrong_short` to `wrong_long`, so that thinking longer pays only while the
    answer is still wrong. A response of `max_tokens` or more gets `exceeded`, right or wrong: with `max_tokens` the
    generation limit that is one which was cut. Defaults are the paper's. Outcome plus this, without the price on
    repetition, is the paper's cosine reward at `--length_penalty.coef` 1; the host clips it to `--reward.clip_range`.
    The authors' code gives `exceeded` from 16 tokens before the limit on.

    Every token of an n-gram (`ngram` tokens) that stood earlier in the response costs `repetition` more, once: as many
    tokens as the authors' program counts. Here we differ from the paper on purpose: it puts the same price on each
    repeated token where it stands, as a dense reward with a discount of its own (0.99) beside the outcome's, so that
    later repetition is not charged to what was written
    first; one outcome reward has no place for that, so all tokens of the response pay the sum.
    """

    needs: ClassVar[frozenset[PenaltyNeed]] = frozenset({PenaltyNeed.TOKENS})
    max_tokens: int = option(
        1024, "tokens from which a response gets `exceeded`; a run's default is its generation limit", least=1
    )
    correct_short: float = option(2.0, "reward of a correct response without a token")
    correct_long: float = option(1.0, "reward of a correct response of max_tokens")
    wrong_short: float = option(-10.0, "reward of a wrong response without a token")
    wrong_long: float = option(0.0, "reward of a wrong response of max_tokens")
    exceeded: float = option(-10.0, "reward of a longer response")
    ngram: int = option(40, "tokens of an n-gram that counts as repeated", least=1, read_with="repetition")
    repetition: float = option(0.05, "price of a repeated token", least=0)

    @classmethod
    def fitted(cls, limit: int) -> dict[str, object]:
        return {"max_tokens": limit}

    def conflict(self, limit: int, samples: int) -> str | None:
        if self.max_tokens <= limit:
            return None
        return f"max_tokens {self.max_tokens} is more than the {limit} tokens that a response may have"

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        import torch

        lengths = batch.lengths.float()
        correct = batch.correct.float()
        start = torch.where(batch.correct, self.correct_short, self.wrong_short)
        end = torch.where(batch.correct, self.correct_long, self.wrong_long)
        fall = (1 + torch.cos(torch.pi * (lengths / self.max_tokens).clamp(max=1.0))) / 2
        rewards = torch.where(lengths >= self.max_tokens, self.exceeded, end + (start - end) * fall)
        repeated = lengths.new_tensor([repeated_tokens(ids, self.ngram) for ids in batch.token_ids])
        return rewards - correct - self.repetition * repeated


def repeated_tokens(token_ids: Sequence[int], size: int) -> int:
    """How many tokens lie in an n-gram of `size` tokens that stood earlier in the response, each counted once; 0 for
    fewer than `size` + 1 tokens.
    """
    seen: set[tuple[int, ...]] = set()
    count = counted = 0  # tokens before `counted` are counted, or belong to no repetition
    for start in range(len(token_ids) - size + 1):
        ngram = tuple(token_ids[start : start + size])
        if ngram in seen:
            count += start + size - max(start, counted)
            counted = start + size
        seen.add(ngram)
    return count
