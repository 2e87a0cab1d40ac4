"""What a rollout carries beside the host's fields."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from openrlhf_prm.advantages.branch_values import Branches


@dataclass(frozen=True)
class StepRecord:
    """The steps of one response. ends: token counts at which steps end, within the response; scores: one in [0, 1]
    per step, NaN for a step without visible text, which the PRM is not asked about; None without a PRM. text_ends:
    token counts at which the visible text of steps ends, None where steps were not cut from text.

    repetition: share of steps whose text stood earlier in the response. scoring_s: seconds from the response's end, at
    ended_s by the clock, to its scores. branches: what was sampled from the states before steps 2, 3, ..., one entry
    less than there are steps; None where nothing was sampled. probabilities: of the response's tokens, None unless
    steps are cut by them. turn_ends: token counts at which turns end, each of which is the end of a step;
    turn_rewards: what an agent paid for each, None where it pays for the response alone. fork_ends: token counts at
    which other responses of its group may leave its path.
    """

    ends: tuple[int, ...]
    scores: tuple[float, ...] | None
    repetition: float
    scoring_s: float
    branches: tuple[Branches, ...] | None = None
    probabilities: tuple[float, ...] | None = None
    ended_s: float = 0.0
    turn_ends: tuple[int, ...] = ()
    turn_rewards: tuple[float, ...] | None = None
    text_ends: tuple[int, ...] | None = None
    fork_ends: tuple[int, ...] = ()

    def __post_init__(self):
        if self.scores is not None and len(self.ends) != len(self.scores):
            raise ValueError(f"step scores must align with steps: got {len(self.scores)}, expected {len(self.ends)}")
        if self.branches is not None and len(self.branches) != max(len(self.ends) - 1, 0):
            raise ValueError(
                f"branches must align with inner steps: got {len(self.branches)}, expected {len(self.ends) - 1}"
            )

    @property
    def tokens(self) -> int:
        """How many tokens the response has."""
        return self.ends[-1] if self.ends else 0

    @property
    def known_scores(self) -> tuple[float, ...]:
        """The scores of steps that have one."""
        return tuple(score for score in self.scores or () if not math.isnan(score))

    @property
    def separators(self) -> list[int]:
        """Places of the tokens that only separate steps or end the response."""
        spans = zip(self.text_ends or (), self.ends, strict=False)
        return [place for text_end, end in spans for place in range(text_end, end)]

    def cut(self, tokens: int) -> "StepRecord":
        """The record of the response's first `tokens` tokens: later steps and turns are dropped, the last ones kept end
        at the cut. What later turns were paid stays the response's: the last turn kept gets it. Without a token there
        is neither step nor turn.
        """
        if self.tokens <= tokens:
            return self
        kept = sum(end < tokens for end in self.ends) + 1 if tokens else 0
        turns = sum(end < tokens for end in self.turn_ends) + 1
        paid = self.turn_rewards
        return replace(
            self,
            ends=(*self.ends[: kept - 1], tokens) if kept else (),
            scores=None if self.scores is None else self.scores[:kept],
            branches=None if self.branches is None else self.branches[: max(kept - 1, 0)],
            probabilities=None if self.probabilities is None else self.probabilities[:tokens],
            turn_ends=(*self.turn_ends[: turns - 1], tokens) if self.turn_ends and kept else (),
            turn_rewards=None if paid is None or not kept else (*paid[: turns - 1], sum(paid[turns - 1 :])),
            text_ends=None if self.text_ends is None else tuple(min(end, tokens) for end in self.text_ends[:kept]),
            fork_ends=tuple(end for end in self.fork_ends if end < tokens),
        )


def hidden_share(records: Sequence[StepRecord]) -> float:
    """The share of the time in which responses waited for scores that lies before the end of the last response: it was
    hidden behind generation. 0 where all end at once, nan where nothing was scored. Waits that overlap count once.
    """
    waits = sorted((record.ended_s, record.ended_s + record.scoring_s) for record in records if record.known_scores)
    if not waits:
        return math.nan
    last_response = waits[-1][0]
    total, hidden, reached = 0.0, 0.0, -math.inf
    for start, end in waits:
        start = max(start, reached)
        if end > start:
            total += end - start
            hidden += max(min(end, last_response) - start, 0.0)
            reached = end
    return hidden / total if total else 0.0
