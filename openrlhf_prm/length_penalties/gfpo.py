"""Sample more, train on the shortest: GFPO (arXiv:2508.09726)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
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
    that agree have no gradient, as in any group.
    """

    needs: ClassVar[frozenset[PenaltyNeed]] = frozenset({PenaltyNeed.GROUP})
    pays: ClassVar[bool] = False
    keep: float = option(0.5, "share of a question's responses that are trained on", above=0, most=1)
    metric: str = option("length", "which responses are kept: short ones, or those with the most reward per token",
                         choices=("length", "efficiency"))  # fmt: skip

    def conflict(self, limit: int, samples: int) -> str | None:
        if self._count(self.keep, samples) < samples:
            return None
        return f"keep {self.keep:g} drops nothing of --rollout.n_samples_per_prompt {samples}"

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        return batch.lengths.float() * 0

    def kept(self, batch: LengthBatch) -> torch.Tensor:
        lengths = batch.lengths.float()
        cost = lengths if self.metric == "length" else -batch.correct.float() / lengths.clamp(min=1.0)
        order = cost.reshape(-1, batch.group_size).argsort(dim=-1, stable=True)
        return (order.argsort(-1) < lengths.new_tensor(self._counts(batch))[:, None]).reshape(-1)

    def _counts(self, batch: LengthBatch) -> list[int]:
        """How many responses of each question are kept."""
        return [self._count(self.keep, batch.group_size)] * (len(batch.lengths) // batch.group_size)

    @staticmethod
    def _count(share: float, samples: int) -> int:
        return max(1, round(samples * share))


@dataclass(frozen=True, kw_only=True)
class GFPODifficulty(GFPO):
    """`gfpo` that keeps fewer responses of easier questions: Adaptive Difficulty GFPO, algorithm 2.

    A question's difficulty is the share of its responses that are right, against that of all questions of the run so
    far, this rollout's included: below the median `keep` of its responses stay, from there `keep_medium`, and from the
    third quartile on `keep_easy`. The authors' numbers are 8, 6 and 4 of 16. They distinguish hard and very hard
    questions, of which they keep the same, and take the mean of a reward that knows lengths too where this takes the
    share of right responses. Their quartiles come from a t-digest; here they are exact, with linear interpolation
    between neighbours.

    In the first `ready_after` rollouts all questions are hard ("a few" in the paper). Questions that agree with more
    than a quarter of all stand at the third quartile and are easy, unsolved ones as well: such a group has no gradient
    whatever is kept. What was seen is kept in checkpoints, and counted anew where the number of samples changes.
    """

    needs: ClassVar[frozenset[PenaltyNeed]] = frozenset({PenaltyNeed.GROUP, PenaltyNeed.STATE})
    keep: float = option(0.5, "share of a hard question's responses that are trained on", above=0, most=1)
    keep_medium: float = option(0.375, "the same of a question between median and third quartile", above=0, most=1)
    keep_easy: float = option(0.25, "the same of a question from the third quartile on", above=0, most=1)
    ready_after: int = option(3, "rollouts in which every question is hard", least=0)

    def conflict(self, limit: int, samples: int) -> str | None:
        kept = {self._count(share, samples) for share in (self.keep, self.keep_medium, self.keep_easy)}
        if len(kept) > 1:
            return None
        return (
            f"kind gfpo_difficulty keeps {kept.pop()} of --rollout.n_samples_per_prompt {samples} whatever the "
            "difficulty: raise that, or take kind gfpo"
        )

    def _counts(self, batch: LengthBatch) -> list[int]:
        size, state = batch.group_size, batch.state
        right = batch.correct.reshape(-1, size).sum(-1).tolist()
        if len(state.get("questions", ())) != size + 1:
            state.update(questions=[0] * (size + 1), rollouts=0)
        for count in right:
            state["questions"][count] += 1
        state["rollouts"] += 1
        median, upper = (quantile(state["questions"], share) for share in (0.5, 0.75))
        shares = [
            self.keep if state["rollouts"] <= self.ready_after or count < median
            else self.keep_medium if count < upper
            else self.keep_easy
            for count in right
        ]  # fmt: skip
        return [self._count(share, size) for share in shares]


def quantile(counts: Sequence[int], share: float) -> float:
    """Of numbers 0, 1, ... of which number n stands there counts[n] times; between two neighbours by interpolation."""
    ends = list(accumulate(counts))
    place = share * (ends[-1] - 1)
    lower, upper = (bisect_right(ends, at) for at in (math.floor(place), math.ceil(place)))
    return lower + (upper - lower) * (place - math.floor(place))
