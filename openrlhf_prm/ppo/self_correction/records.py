"""What an episode's attempts are, and a rollout of episodes seen as one of attempts.

Seen so, an attempt is a response of its own: step rewards are shaped, lengths and answers judged attempt by attempt,
and compared with the same attempt of the question's other episodes. Nothing else has to know of attempts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from openrlhf_prm.ppo.rollout.records import StepRecord
from openrlhf_prm.ppo.rollout_columns import RolloutColumns


@dataclass(frozen=True)
class Attempts:
    """N entries each. ends: counts of the policy's own tokens at which attempts end. rewards: the outcome reward of
    each attempt; scores: what says whether it is right. truncated: whether it was cut at its limit. offline: whether
    the first one is not the policy's; then it has no tokens of its own.
    """

    ends: tuple[int, ...]
    rewards: tuple[float, ...]
    scores: tuple[float, ...]
    truncated: tuple[bool, ...]
    offline: bool = False

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Begin and end of each attempt in the policy's own tokens."""
        return list(pairwise((0, *self.ends)))


def in_attempts(rollout: RolloutColumns, attempts: Sequence[Attempts], correct: torch.Tensor) -> RolloutColumns:
    """A rollout of B episodes -> one of N * B attempts: all first ones in rollout order, then all second ones, so that
    the attempts of a question still stand together. correct: (N, B).
    """
    episodes = list(zip(attempts, rollout.token_ids, strict=True))
    for episode, tokens in episodes:
        if episode.ends[-1] != len(tokens):
            raise ValueError(f"attempts must align with actions: got {episode.ends[-1]} tokens, expected {len(tokens)}")
    count = len(attempts[0].ends)
    tokens = [tokens[slice(*episode.spans[place])] for place in range(count) for episode, tokens in episodes]
    records = [
        record_of(record, *episode.spans[place])
        for place in range(count)
        for record, episode in zip(rollout.records, attempts, strict=bool(rollout.records))
    ]
    return replace(
        rollout,
        outcomes=by_attempt([episode.rewards for episode in attempts]).flatten(),
        correct=correct.flatten(),
        lengths=torch.tensor([float(len(part)) for part in tokens]),
        truncated=by_attempt([episode.truncated for episode in attempts]).flatten() > 0.5,
        prompts=rollout.prompts * count,
        responses=None,
        token_ids=tokens,
        records=records,
    )


def by_attempt(rows: Sequence[Sequence[float]]) -> torch.Tensor:
    """B rows of N numbers -> (N, B)."""
    return torch.tensor(rows, dtype=torch.float32).T.contiguous()


def record_of(record: StepRecord, start: int, end: int) -> StepRecord:
    """The steps of one attempt, which is the tokens `start`..`end` of an episode; counts begin at 0 there. No step
    stands in two attempts.
    """
    mine = [place for place, last in enumerate(record.ends) if start < last <= end]
    return replace(
        record,
        ends=tuple(record.ends[place] - start for place in mine),
        scores=None if record.scores is None else tuple(record.scores[place] for place in mine),
        text_ends=None if record.text_ends is None else tuple(record.text_ends[place] - start for place in mine),
        turn_ends=(end - start,) if end > start else (),
        turn_rewards=None,
    )
