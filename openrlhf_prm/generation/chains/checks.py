"""What a chain must be to be kept. Pure functions of a row (`rows`) and the options; one line in `CHECKS` each."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from openrlhf_prm.generation.chains.draft import ROOT, ancestors
from openrlhf_prm.options import Options, option

ROLE_NAMES = ("planner", "elaborator", "critic", "verifier", "editor", "finisher", "outliner")
WRITERS = ("elaborator", "writer")
"""Roles whose words are steps."""


@dataclass(frozen=True, kw_only=True)
class LengthOptions(Options):
    """How long a chain may be, in tokens of the policy."""

    min: int = option(0, "tokens that a response must have", least=0)
    max: int | None = option(None, "tokens that a response may have", least=1, kind=int)

    def __post_init__(self):
        super().__post_init__()
        if self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is more than .max {self.max}")


Row = Mapping
Check = Callable[[Row, LengthOptions], bool]


def wrong_answer(row: Row, length: LengthOptions) -> bool:
    """The response as a whole does not have the right answer. None: it was not asked for one."""
    return row["correct"] is False


def unwritten_step(row: Row, length: LengthOptions) -> bool:
    """A step that is not, word for word, what its role wrote at this node, or one that the text lacks, as after
    an editor who changed it.
    """
    written = {event["node"]: event["text"] for event in row["events"] if event["role"] in WRITERS}
    text = " ".join(row["response"].split())
    steps = [part for part in row["chain"] if part["kind"] in ("step", "failed", "answer")]
    if any(written.get(part["node"]) != part["text"] for part in steps):
        return True
    return any(" ".join(part["text"].split()) not in text for part in row["chain"])


def stray_backtrack(row: Row, length: LengthOptions) -> bool:
    """A reflection that goes back to something else than an ancestor of the step before it."""
    parents, last = {}, ROOT
    for part in row["chain"]:
        if part["kind"] in ("step", "failed", "answer"):
            if part["parent"] != ROOT and part["parent"] not in parents:
                return True
            parents[part["node"]], last = part["parent"], part["node"]
        elif part["kind"] == "reflection":
            if part["target"] not in ancestors(parents, last)[1:]:
                return True
            last = part["target"]
    return False


def broken_path(row: Row, length: LengthOptions) -> bool:
    """Without what failed and the reflections, what is left is not one way from the question to the answer."""
    before = ROOT
    way = [part for part in row["chain"] if part["kind"] in ("step", "answer")]
    for part in way:
        if part["parent"] != before:
            return True
        before = part["node"]
    return [part["kind"] for part in way].count("answer") != 1 or way[-1]["kind"] != "answer"


def repeated_step(row: Row, length: LengthOptions) -> bool:
    """Two steps with the same words."""
    steps = [" ".join(part["text"].split()) for part in row["chain"] if part["kind"] in ("step", "failed", "answer")]
    return len(set(steps)) < len(steps)


def role_name(row: Row, length: LengthOptions) -> bool:
    """The text speaks of a role ("the critic"), which the question does not."""
    spoken, asked = (set(re.findall(r"[a-z]+", row[key].lower())) for key in ("response", "question"))
    return any(name in spoken and name not in asked for name in ROLE_NAMES)


def too_short(row: Row, length: LengthOptions) -> bool:
    """Fewer tokens than `--length.min`."""
    return row["tokens"] < length.min


def too_long(row: Row, length: LengthOptions) -> bool:
    """More tokens than `--length.max`."""
    return length.max is not None and row["tokens"] > length.max


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        *(wrong_answer, unwritten_step, stray_backtrack, broken_path, repeated_step, role_name),
        *(too_short, too_long),
    )
}
"""Reason -> whether a row is to be left out for it."""


def faults(row: Row, length: LengthOptions) -> list[str]:
    """Why a row is left out: the reasons, [] for none. A row without a chain has its own reason alone."""
    if row["fault"] is not None:
        return [row["fault"]]
    return [name for name, check in CHECKS.items() if check(row, length)]
