"""What a rollout carries beside the host's fields."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StepRecord:
    """The steps of one response. ends: token counts at which steps end, within the response; scores: one in [0, 1]
    per step.

    repetition: share of steps whose text stood earlier in the response. scoring_s: seconds from the response's end to
    its scores.
    """

    ends: tuple[int, ...]
    scores: tuple[float, ...]
    repetition: float
    scoring_s: float

    def __post_init__(self):
        if len(self.ends) != len(self.scores):
            raise ValueError(f"step scores must align with steps: got {len(self.scores)}, expected {len(self.ends)}")

    def cut(self, tokens: int) -> "StepRecord":
        """The record of the response's first `tokens` tokens: later steps are dropped, the last one kept ends at the
        cut.
        """
        if not self.ends or self.ends[-1] <= tokens:
            return self
        kept = sum(end < tokens for end in self.ends) + 1
        return StepRecord((*self.ends[: kept - 1], tokens), self.scores[:kept], self.repetition, self.scoring_s)
