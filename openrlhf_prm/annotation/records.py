"""Step-label files: one JSON line per labelled solution, written so that a killed run loses and repeats nothing.

A record::

    {"id": "9f2c...",            the question: the input row's "id", else a hash of its question and label
     "solution": 0,              which solution of this question, 0 .. solutions-1
     "solutions": 2,             how many solutions this question has
     "question": "Q: 8+7=?\\n",   as in the input, before any template
     "label": "15",              the reference answer
     "root": {"right": 5,        of `rollouts` responses sampled from the question itself, `right` were right;
              "rollouts": 8,     `visits` is how often a tree search went on from here
              "visits": 0},
     "response": "8+7=15\\n...",  the policy's solution as text, without special tokens
     "steps": ["8+7=15", ...],   its S steps, without trailing white space
     "mc_values": [1.0, ...],    S estimates right / rollouts of the chance that the policy gets the answer right from
                                 after the step; null where nothing was measured; the last is the solution's own outcome
     "hard_labels": [1, ...],    S times 0 or 1
     "soft_labels": [1.0, ...],  S numbers in [0, 1]: the value, and between measured steps what lies between them
     "right": [8, ..., 0],       S times how many of the rollouts were right
     "rollouts": [9, ..., 0],    S times the rollouts the value rests on; 0 where it is derived
     "endings": [1, ..., 0],     S times how many of these were not decoded after this step but pass through it: endings
                                 of solutions and of rollouts of earlier steps, which cost nothing
     "visits": [0, ...],         S times how often a tree search went on from after the step
     "correct": true,            whether the response reached the right answer
     "truncated": false,         whether the response was cut at the token limit, which counts as not correct
     "copies": 1}                how many responses said the same and were merged into this record (omega_prm)

The tree of a question is the union of its solutions: equal first steps are one node, with the counts written there, and
`root` is its root. A solution without text has no steps (S = 0). The solutions of a question stand together and are
written in one go, so a question is either finished or absent.

Questions without labels, because every response of theirs was right or every one wrong, stand in
`<output>.dropped.jsonl`: {"id", "question", "label", "reason": "all_right" | "all_wrong", "root"}.
`<output>.settings.json` holds the settings the labels depend on.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """`right` of `rollouts` rollouts reached the right answer. `endings` of them were decoded after an earlier step."""

    right: int
    rollouts: int
    endings: int = 0

    @property
    def value(self) -> float:
        """The Monte Carlo estimate of the chance to get the answer right."""
        return self.right / self.rollouts


@dataclass(frozen=True)
class Root:
    """The question as the root of its tree."""

    right: int
    rollouts: int
    visits: int = 0


@dataclass(frozen=True)
class LabelledSolution:
    """One record without the question's part; the fields are described in the module's docstring."""

    response: str
    steps: list[str]
    mc_values: list[float | None]
    hard_labels: list[int]
    soft_labels: list[float]
    right: list[int]
    rollouts: list[int]
    visits: list[int]
    correct: bool
    truncated: bool
    endings: list[int]
    copies: int = 1

    def __post_init__(self):
        for name in ("mc_values", "hard_labels", "soft_labels", "right", "rollouts", "visits", "endings"):
            assert len(getattr(self, name)) == len(self.steps), f"{name} must have one entry per step"


@dataclass(frozen=True)
class AnnotatedQuestion:
    """What an annotator made of a question, and what that cost: labelled solutions, or the reason why there are none
    (`dropped`).
    """

    root: Root
    solutions: list[LabelledSolution]
    usage: dict[str, int]
    dropped: str | None = None

    def __post_init__(self):
        assert bool(self.solutions) != bool(self.dropped), "solutions, or a reason why there are none"
