"""A bonus for right responses that are short enough, with a target that follows the policy: Laser (arXiv:2505.15612).

The authors' wrong responses get -0.5 (their rho), which is the outcome reward's affair here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.length_penalties.penalty import LengthBatch, LengthPenalty, PenaltyNeed
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch

LEVELS = ("hard", "medium", "easy")
"""A question by the share of its responses that are right: below a third, below two thirds, the others."""


@dataclass(frozen=True, kw_only=True)
class Laser(LengthPenalty):
    """`bonus` for right responses of at most `target` tokens, 0 for all others.

    A step instead of a slope: a response gains nothing by being shorter than it has to be, and a right one that is too
    long still gets its outcome. The paper's alpha is `bonus`. With no response or every response short enough all
    right ones get the same.
    """

    bonus: float = option(0.5, "what a right response that is short enough gets")
    target: int = option(512, "longest response that gets the bonus; a run's default is half its limit", least=1)

    @classmethod
    def fitted(cls, limit: int) -> dict[str, object]:
        return {"target": max(limit // 2, 1)}

    def conflict(self, limit: int, samples: int) -> str | None:
        if self.target < limit:
            return None
        return f"target {self.target} is not below the {limit} tokens that a response may have: all get the bonus"

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        return self.bonus * (batch.correct & (batch.lengths <= self.target)).float()


@dataclass(frozen=True, kw_only=True)
class LaserD(LengthPenalty):
    """Laser with one target for each of three levels of difficulty: the shortest length at which a group may still be
    expected to have a right response.

    A question is easy from 2/3 right responses on, medium from 1/3, else hard. Of each level's responses in the last
    `window` rollouts a share c(l) has at most l tokens, and its groups have at least n right ones: floor(2 G / 3) for
    easy, floor(G / 3) for medium, 1 for hard questions. The target is the least l of `shortest`, `shortest` +
    `interval`, ... below `max_tokens` with floor(c(l) * n) >= 1, else `max_tokens`. So hard questions keep the length
    of their longest response, and targets fall as the policy gets shorter.

    The authors measure c every 20 updates on 500 questions set apart; here the rollouts are the measure. They are kept
    in checkpoints, and none counts for its own targets: the first one has `max_tokens`. Other `shortest`, `interval`
    or `max_tokens` after a resume start anew. At exactly 1/3 and 2/3 the authors' measure takes the harder level and
    their reward the easier one, which is taken for both here; their grid goes on at 1024 behind a `shortest` below.
    A level that has not been seen: `max_tokens`.
    """

    needs: ClassVar[frozenset[PenaltyNeed]] = frozenset({PenaltyNeed.GROUP, PenaltyNeed.STATE})
    bonus: float = option(0.5, "what a right response that is short enough gets")
    shortest: int = option(256, "smallest target; a run's default is a quarter of its limit", least=1)
    interval: int = option(64, "tokens between targets that are tried; a run's default is 1/16 of its limit", least=1)
    max_tokens: int = option(
        1024, "target where none is short enough; a run's default is its generation limit", least=1
    )
    window: int = option(20, "rollouts from which targets follow", least=1)

    @classmethod
    def fitted(cls, limit: int) -> dict[str, object]:
        return {"shortest": max(limit // 4, 1), "interval": max(limit // 16, 1), "max_tokens": limit}

    def conflict(self, limit: int, samples: int) -> str | None:
        if self.shortest < min(self.max_tokens, limit):
            return None
        return f"shortest {self.shortest} is not below max_tokens and the {limit} tokens that a response may have"

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        short = batch.lengths <= self._targets(batch)
        return self.bonus * (batch.correct & short).float()

    def _targets(self, batch: LengthBatch) -> torch.Tensor:
        """(B,) targets from the rollouts before this one, which is then remembered."""
        grid = list(range(self.shortest, self.max_tokens, self.interval))
        if batch.state.get("grid") != grid:
            batch.state.update(grid=grid, rollouts=[])
        right = batch.correct.reshape(-1, batch.group_size).sum(-1)
        levels = [(3 * int(count) >= batch.group_size) + (3 * int(count) >= 2 * batch.group_size) for count in right]
        targets = [self._target(level, batch) for level in range(len(LEVELS))]
        covered = {name: [0] * (len(grid) + 1) for name in LEVELS}
        for level, lengths in zip(levels, batch.lengths.reshape(-1, batch.group_size).tolist(), strict=True):
            for place, longest in enumerate([float("inf"), *grid]):
                covered[LEVELS[level]][place] += sum(length <= longest for length in lengths)
        batch.state["rollouts"] = [*batch.state["rollouts"], covered][-self.window :]
        return batch.lengths.new_tensor([targets[level] for level in levels]).repeat_interleave(batch.group_size)

    def _target(self, level: int, batch: LengthBatch) -> int:
        counts = [rollout[LEVELS[level]] for rollout in batch.state["rollouts"]]
        responses, *covered = (sum(column) for column in zip(*counts, strict=True)) if counts else [0]
        right = level * batch.group_size // 3 if level else 1
        for target, count in zip(batch.state["grid"], covered, strict=False):
            if responses and count * right >= responses:
                return target
        return self.max_tokens


@dataclass(frozen=True, kw_only=True)
class LaserDE(LaserD):
    """Laser-D, and the bonus for wrong responses longer than their target, unless they repeat themselves.

    Where the answer is not found yet, going on is exploration. What repeats is `repeats_itself`: the authors' rule,
    which in their program never applies, because it is handed a tensor, no two elements of which are the same key.
    """

    needs: ClassVar[frozenset[PenaltyNeed]] = LaserD.needs | {PenaltyNeed.TOKENS}

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        short = batch.lengths <= self._targets(batch)
        explores = ~batch.correct & ~short
        for place in explores.nonzero().flatten().tolist():
            explores[place] = not repeats_itself(batch.token_ids[place])
        return self.bonus * ((batch.correct & short) | explores).float()


def repeats_itself(tokens: Sequence[int]) -> bool:
    """Whether a response repeats itself, as the authors' program counts it.

    Some n-gram stands in it twice (3 times from 200 tokens on), two of these closer than a third of the response, or
    some 2n-gram stands in it twice; n is 2 below 30 tokens, 3 below 100, else 4. A 3- or 4-gram of one token alone does
    not count. Up to 8 tokens nothing is a repetition.
    """
    length = len(tokens)
    if length <= 8:
        return False
    n = 2 if length < 30 else 3 if length < 100 else 4
    places = defaultdict(list)
    for start in range(length - n + 1):
        places[tuple(tokens[start : start + n])].append(start)
    times = 2 if length < 200 else 3
    for ngram, starts in places.items():
        if len(starts) >= times and (n == 2 or len(set(ngram)) > 1):
            if any(later - earlier < length // 3 for earlier, later in pairwise(starts)):
                return True
    pairs = [tuple(tokens[start : start + 2 * n]) for start in range(length - 2 * n + 1)]
    return length >= 4 * n and len(set(pairs)) < len(pairs)
