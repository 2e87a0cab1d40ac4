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
     "rollouts": [8, ..., 0],    S times the rollouts the value rests on; 0 where it is derived
     "visits": [0, ...],         S times how often a tree search went on from after the step
     "correct": true,            whether the response reached the right answer
     "truncated": false}         whether the response was cut at the token limit, which counts as not correct

The tree of a question is the union of its solutions: equal first steps are one node, with the counts written there, and
`root` is its root. A solution without text has no steps (S = 0). The solutions of a question stand together and are
written in one go, so a question is either finished or absent.

Questions without labels, because every response of theirs was right or every one wrong, stand in
`<output>.dropped.jsonl`: {"id", "question", "label", "reason": "all_right" | "all_wrong", "root"}.
`<output>.settings.json` holds the settings the labels depend on.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openrlhf_prm.answers import AnswerChecker


@dataclass(frozen=True)
class Question:
    """One input row."""

    id: str
    question: str
    label: str


@dataclass(frozen=True)
class Tally:
    """`right` of `rollouts` rollouts reached the right answer."""

    right: int
    rollouts: int

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

    def __post_init__(self):
        for name in ("mc_values", "hard_labels", "soft_labels", "right", "rollouts", "visits"):
            assert len(getattr(self, name)) == len(self.steps), f"{name} must have one entry per step"


@dataclass(frozen=True)
class AnnotatedQuestion:
    """What an annotator found: labelled solutions, or the reason why there are none (`dropped`), and what it cost."""

    root: Root
    solutions: list[LabelledSolution]
    usage: dict[str, int]
    dropped: str | None = None

    def __post_init__(self):
        assert bool(self.solutions) != bool(self.dropped), "solutions, or a reason why there are none"


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict]]:
    """(line number from 1, row) of a JSONL file; blank lines are skipped. Raises ValueError naming file and line."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path} line {number}: not JSON ({error})") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path} line {number}: expected a JSON object, got {type(row).__name__}")
            yield number, row


def read_rows(path: str | Path) -> Iterator[tuple[int, dict]]:
    """(number from 1, row) of a Parquet file where the name ends so, else of a JSONL file. Raises ValueError for what
    is neither.
    """
    if Path(path).suffix != ".parquet":
        yield from read_jsonl(path)
        return
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file ({error})") from None
    rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
    yield from enumerate(rows, start=1)


def read_questions(
    path: str | Path,
    input_key: str,
    label_key: str,
    max_samples: int | None = None,
    is_correct: AnswerChecker | None = None,
) -> list[Question]:
    """The questions of a JSONL file, at most `max_samples`. Rows that repeat a question and its label are dropped.

    Raises ValueError naming file and line for a row without one of the keys, an empty question, a label that is neither
    text nor a number or that `is_correct` cannot use, or an id that stands for two different questions; and for a file
    without any question.
    """
    found: dict[str, Question] = {}
    for number, row in read_jsonl(path):
        where = f"{path} line {number}"
        for key in (input_key, label_key):
            if row.get(key) is None:
                raise ValueError(f"{where}: no key {key!r}; the row has {', '.join(row) or 'none'}")
        text, label = row[input_key], row[label_key]
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}: {input_key!r} must be a text, got {text!r}")
        if isinstance(label, bool) or not isinstance(label, str | int | float):
            raise ValueError(f"{where}: {label_key!r} must be a text or a number, got {label!r}")
        label = str(label)
        if is_correct is not None:
            try:
                is_correct("", label)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        identity = str(row["id"]) if row.get("id") is not None else question_id(text, label)
        question = Question(identity, text, label)
        if found.setdefault(identity, question) != question:
            raise ValueError(f"{where}: id {identity!r} already stands for another question")
        if len(found) == max_samples:
            break
    if not found:
        raise ValueError(f"{path} holds no question")
    return list(found.values())


def question_id(question: str, label: str) -> str:
    """The id of a question that has none: stable when lines are added or moved."""
    return hashlib.sha256(f"{question}\0{label}".encode()).hexdigest()[:16]
