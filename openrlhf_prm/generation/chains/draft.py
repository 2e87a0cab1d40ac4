"""What is written for one question: everything that was said (events), and the chain that it becomes (parts)."""

from dataclasses import asdict, dataclass, field

ROOT = 0
"""The node of the question itself; every step is a node whose parent is the step before it."""

KINDS = ("plan", "step", "failed", "reflection", "check", "answer")
"""Of a chain's parts. `step` and `answer` are the way to the answer, `failed` what was taken back."""


@dataclass(kw_only=True)
class Event:
    """What a role said. `node`: the step it is, or is about; None for a step that was not taken up. `attempt`: which
    try at the same thing. `target`: where a verdict says to go on from.
    """

    role: str
    node: int | None
    parent: int | None = None
    attempt: int = 0
    text: str = ""
    score: float | None = None
    verdict: str | None = None
    target: int | None = None
    tokens: int = 0
    prompt_tokens: int = 0
    seed: int | None = None

    def as_row(self) -> dict:
        """As it stands in a file, `attempt` under the name `try`."""
        row = asdict(self)
        return {("try" if name == "attempt" else name): value for name, value in row.items()}


@dataclass(kw_only=True)
class Part:
    """A piece of the chain. `parent`: of a step; `target`: of a reflection, the node that it goes back to. `wrong`: a
    step that was found wrong; others are taken back because nothing came of them.
    """

    kind: str
    text: str
    node: int | None = None
    parent: int | None = None
    target: int | None = None
    score: float | None = None
    wrong: bool = False


@dataclass(kw_only=True)
class Draft:
    """What a scheme made of a question. `correct`: None where no answer is asked for. `fault`: why it has no chain."""

    plan: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    response: str = ""
    correct: bool | None = False
    fault: str | None = None


class NoChain(Exception):
    """A scheme came to no chain. `reason`: for the count."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


def ancestors(parents: dict[int, int], node: int) -> list[int]:
    """The node, its parent and so on to the question. Raises KeyError for a node that hangs in the air."""
    line = [node]
    while line[-1] != ROOT:
        line.append(parents[line[-1]])
        assert len(line) <= len(parents) + 1, "a circle of parents"
    return line
