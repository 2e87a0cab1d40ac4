"""Step-label files: one JSON line per labelled solution, written so that a killed run loses and repeats nothing.

A record::

    {"id": "9f2c...",            the question: the input row's "id", else a hash of its question and label
     "solution": 0,              which solution of this question, 0 .. solutions-1
     "solutions": 2,             how many solutions this question has
     "question": "Q: 8+7=?\\n",   as in the input, before any template
     "label": "15",              the reference answer
     "response": "8+7=15\\n...",  the policy's solution as text, without special tokens
     "steps": ["8+7=15", ...],   its S steps, without trailing white space
     "mc_values": [1.0, ...],    S estimates of the chance that the policy gets the answer right from after the step
     "hard_labels": [1, ...],    S times 0 or 1
     "soft_labels": [1.0, ...],  S numbers in [0, 1]
     "rollouts": [8, ..., 0],    S times the rollouts the value rests on; 0 where it is derived
     "correct": true,            whether the response reached the right answer
     "truncated": false}         whether the response was cut at the token limit, which counts as not correct

A solution without text has no steps (S = 0). The solutions of a question stand together and are written in one go, so a
question is either finished or absent. `<output>.settings.json` beside the file holds the settings the labels depend on.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Question:
    """One input row."""

    id: str
    question: str
    label: str


@dataclass(frozen=True)
class LabelledSolution:
    """One record without the question's part; the fields are described in the module's docstring."""

    response: str
    steps: list[str]
    mc_values: list[float]
    hard_labels: list[int]
    soft_labels: list[float]
    rollouts: list[int]
    correct: bool
    truncated: bool

    def __post_init__(self):
        for name in ("mc_values", "hard_labels", "soft_labels", "rollouts"):
            assert len(getattr(self, name)) == len(self.steps), f"{name} must have one entry per step"


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


def read_questions(path: str | Path, input_key: str, label_key: str, max_samples: int | None = None) -> list[Question]:
    """The questions of a JSONL file, at most `max_samples`. Rows that repeat a question and its label are dropped.

    Raises ValueError naming file and line for a row without one of the keys, an empty question, a label that is neither
    text nor a number, or an id that stands for two different questions; and for a file without any question.
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


class LabelFile:
    """Append-only, durable file of labelled solutions. Use as a context manager; one process may hold it at a time.

    Opening a file that a killed run left behind cuts off its last question if not all of that question is there;
    `finished` then holds the ids of the questions that need no work.
    """

    def __init__(self, path: str | Path, settings: dict):
        """Raises ValueError where the file has other settings, was made by something else, or another run holds it."""
        self.path = Path(path)
        self.settings_path = self.path.with_name(self.path.name + ".settings.json")
        if self.path.is_dir():
            raise ValueError(f"{path} is a folder, not a file")
        self._check_settings(json.loads(json.dumps(settings)))
        self.finished, end = _finished_questions(self.path) if self.path.exists() else (set(), 0)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self.path, "ab")  # noqa: SIM115 - closed by __exit__
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.file.close()
            raise ValueError(f"{path} is being written by another run") from None
        self.file.truncate(end)
        if not self.settings_path.exists():
            _write_durably(self.settings_path, json.dumps(settings, indent=2) + "\n")

    def append(self, question: Question, solutions: Sequence[LabelledSolution]) -> None:
        """Writes all solutions of a question at once and returns when they are on disk."""
        assert solutions, "a finished question has at least one solution"
        assert question.id not in self.finished, f"question {question.id} is already finished"
        lines = []
        for index, solution in enumerate(solutions):
            head = {"id": question.id, "solution": index, "solutions": len(solutions)}
            row = {**head, "question": question.question, "label": question.label, **asdict(solution)}
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        self.file.write("".join(lines).encode())
        self.file.flush()
        os.fsync(self.file.fileno())
        self.finished.add(question.id)

    def _check_settings(self, settings: dict) -> None:
        if not self.settings_path.exists():
            if self.path.exists() and self.path.stat().st_size:
                raise ValueError(f"{self.path} exists and has no {self.settings_path.name}; choose another file")
            return
        before = json.loads(self.settings_path.read_text())
        changed = [
            f"{key} was {before.get(key)!r}, is {settings.get(key)!r}"
            for key in sorted({*before, *settings})
            if before.get(key) != settings.get(key)
        ]
        if changed:
            raise ValueError(f"{self.path} was made with other settings ({'; '.join(changed)}); choose another file")

    def __enter__(self) -> "LabelFile":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()


def _finished_questions(path: Path) -> tuple[set[str], int]:
    """Ids of the finished questions, and the offset in bytes at which the last of them ends."""
    finished: set[str] = set()
    end = offset = 0
    number, expected = 0, (None, 0, 0)  # id, next solution, how many
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            offset += len(line)
            if not line.endswith(b"\n"):
                break  # torn by a kill
            try:
                row = json.loads(line)
                identity, index, count = row["id"], row["solution"], row["solutions"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{path} line {number}: not a step-label record; choose another file") from None
            if identity in finished:
                raise ValueError(f"{path} line {number}: question {identity!r} stands in the file twice")
            if (identity, index, count) != (expected if index else (identity, 0, count)) or (expected[1] and not index):
                raise ValueError(f"{path} line {number}: solution {index} of question {identity!r} is out of order")
            expected = (identity, index + 1, count)
            if index + 1 == count:
                finished.add(identity)
                end, expected = offset, (None, 0, 0)
    return finished, end


def _write_durably(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
