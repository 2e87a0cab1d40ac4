"""Rows of labelled solutions -> `LabelledSteps`, a function and a line per format. `annotation.formats` writes them.

records        {"question", "steps": [step, ...], "hard_labels" or "soft_labels": [number in [0, 1] or null, ...]}
               this project's labels (`annotation.records`); null: the step has no label, and nothing is learnt from
               it. For an outcome: {"question", "steps" or "response", "correct": true}.
trl            {"prompt": question, "completions": [step, ...], "labels": [true, ...]}
openrlhf       {"input": "question\\nstep <placeholder>\\n...", "label": ["+", ...] or [0.5, ...]}
               OpenRLHF <= 0.9.5 `train_prm`, soft labels included. The text between two placeholders is a step, without
               the white space around it; what stands before the first step (after the last line break, or from
               "Step 1:" on) is the question; text after the last placeholder has no label and is not looked at.
math_shepherd  {"input": "question Step 1: ... ки\\nStep 2: ... ки", "label": the same text with + or - for every ки}

Where the head learns from outcomes, the label of the last step is the outcome in every format but `records`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from vllm_prm.families.math_shepherd import TAG
from vllm_prm.families.prm_family import Question

_FIRST_STEP = re.compile(r"Step 1\s*:")


@dataclass(frozen=True)
class LabelledSteps:
    """A solution and its targets, probabilities in [0, 1] of being right: one per step, None where a step has no
    label, or one for the outcome. `place`: where it comes from, for messages."""

    question: Question
    steps: list[str]
    targets: list[float | None]
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class RowKeys:
    """Which keys hold what; `label` None is the format's own. `outcome`: read one label for the whole solution.
    `placeholder_token` and `reward_tokens` (right one first) are what `openrlhf` texts are written with."""

    question: str = "question"
    steps: str = "steps"
    label: str | None = None
    input: str = "input"
    outcome: bool = False
    soft: bool = False
    placeholder_token: str = TAG
    reward_tokens: Sequence[str] = ("+", "-")


Solution = tuple[Question, list[str], list[float | None]]


def records_row(row: dict, keys: RowKeys) -> Solution:
    """Raises ValueError saying what is wrong with the row."""
    if not keys.outcome:
        label = keys.label or ("soft_labels" if keys.soft else "hard_labels")
        question, steps, labels = _values(row, keys.question, keys.steps, label)
        _require_text(question, keys.question)
        _require_texts(steps, keys.steps)
        return question, steps, _some_probabilities(labels, len(steps))
    question, outcome = _values(row, keys.question, keys.label or "correct")
    _require_text(question, keys.question)
    steps = row[keys.steps] if row.get(keys.steps) is not None else [_values(row, "response")[0]]
    _require_texts(steps, keys.steps)
    return question, steps, _probabilities([outcome], 1, "outcome")


def trl_row(row: dict, keys: RowKeys) -> Solution:
    """Raises ValueError saying what is wrong with the row."""
    question, steps, labels = _values(row, "prompt", "completions", keys.label or "labels")
    messages = isinstance(question, list) and all(
        isinstance(message, dict) and {"role", "content"} <= set(message) for message in question
    )
    if not messages:
        _require_text(question, "prompt")
    _require_texts(steps, "completions")
    return question, steps, _outcome(_probabilities(labels, len(steps), "completions"), keys)


def openrlhf_row(row: dict, keys: RowKeys) -> Solution:
    """Raises ValueError saying what is wrong with the row."""
    text, labels = _values(row, keys.input, keys.label or "label")
    _require_text(text, keys.input)
    *pieces, _ = text.split(keys.placeholder_token)
    if not pieces:
        raise ValueError(f"no placeholder {keys.placeholder_token!r} in {keys.input!r}")
    good, *bad = keys.reward_tokens
    if isinstance(labels, list) and any(isinstance(label, str) for label in labels):
        if unknown := [label for label in labels if label not in keys.reward_tokens]:
            raise ValueError(f"labels must be among the reward tokens {[good, *bad]}, got {unknown[0]!r}")
        labels = [float(label == good) for label in labels]
    targets = _probabilities(labels, len(pieces), "placeholders")
    question, first = _question_and_step(pieces[0])
    return question, [first, *(piece.strip() for piece in pieces[1:])], _outcome(targets, keys)


def math_shepherd_row(row: dict, keys: RowKeys) -> Solution:
    """Raises ValueError saying what is wrong with the row."""
    text, labelled = _values(row, keys.input, keys.label or "label")
    _require_text(text, keys.input)
    _require_text(labelled, keys.label or "label")
    *pieces, rest = text.split(TAG)
    if not pieces:
        raise ValueError(f"no {TAG!r} in {keys.input!r}")
    targets, at = [], 0
    for piece in pieces:
        verdict = labelled[at + len(piece) : at + len(piece) + 1]
        if not labelled.startswith(piece, at) or verdict not in ("+", "-"):
            raise ValueError(f"the label must repeat the input with + or - for every {TAG}")
        targets.append(float(verdict == "+"))
        at += len(piece) + 1
    if labelled[at:].strip() != rest.strip():
        raise ValueError(f"the label must repeat the input with + or - for every {TAG}")
    question, first = _question_and_step(pieces[0])
    return question, [first, *(piece.strip() for piece in pieces[1:])], _outcome(targets, keys)


ROW_FORMATS: dict[str, Callable[[dict, RowKeys], Solution]] = {
    "records": records_row,
    "trl": trl_row,
    "openrlhf": openrlhf_row,
    "math_shepherd": math_shepherd_row,
}
"""Name of a format -> function from a row to question, steps and targets."""


def seen_format(row: dict, keys: RowKeys) -> str | None:
    """The format whose keys `row` has; None if it has none's."""
    if keys.steps in row or (keys.outcome and "response" in row):
        return "records"
    if "completions" in row:
        return "trl"
    if keys.input in row:
        return "math_shepherd" if isinstance(row.get(keys.label or "label"), str) else "openrlhf"
    return None


def with_format(rows: Iterable[tuple[str, dict]], keys: RowKeys) -> tuple[str, Iterator[tuple[str, dict]]]:
    """The format of the first row that shows one (`records` if none does), and all rows."""
    rows, before = iter(rows), []
    for place, row in rows:
        before.append((place, row))
        if form := seen_format(row, keys):
            return form, chain(before, rows)
    return "records", iter(before)


def _question_and_step(text: str) -> tuple[str, str]:
    text = text.lstrip()
    if marker := _FIRST_STEP.search(text):
        return text[: marker.start()], text[marker.start() :].rstrip()
    question, newline, step = text.rstrip().rpartition("\n")
    return question + newline, step.strip()


def _values(row: dict, *keys: str) -> list:
    for key in keys:
        if row.get(key) is None:
            raise ValueError(f"no key {key!r}; the row has {', '.join(row) or 'none'}")
    return [row[key] for key in keys]


def _require_text(value, key: str) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{key!r} must be a text")


def _require_texts(value, key: str) -> None:
    if not isinstance(value, list) or not all(isinstance(step, str) for step in value):
        raise ValueError(f"{key!r} must be a list of texts")
    if not value:
        raise ValueError("no steps")


def _probabilities(labels, count: int, what: str) -> list[float]:
    if not isinstance(labels, list) or len(labels) != count:
        raise ValueError(f"{count} {what} but {len(labels) if isinstance(labels, list) else 'no list of'} labels")
    if not all(isinstance(label, int | float) and 0 <= label <= 1 for label in labels):  # NaN fails the comparison
        raise ValueError(f"labels must be numbers in [0, 1], got {labels}")
    return [float(label) for label in labels]


def _some_probabilities(labels, count: int) -> list[float | None]:
    """`_probabilities` of steps, some of which may be None, but not all."""
    given = labels
    if isinstance(labels, list) and len(labels) == count:
        given = [label for label in labels if label is not None]
        if not given:
            raise ValueError("no step has a label")
        count = len(given)
    known = iter(_probabilities(given, count, "steps"))
    return [None if label is None else next(known) for label in labels]


def _outcome(targets: list[float], keys: RowKeys) -> list[float]:
    return targets[-1:] if keys.outcome else targets
