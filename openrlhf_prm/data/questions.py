"""Questions with reference answers, as the commands read and write them."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from openrlhf_prm.data.rows import read_jsonl
from vllm_prm.durable_file import write_atomically

KEYS = ("--data.input_key", "question", "--data.label_key", "label")
"""The flags that say so."""


@dataclass(frozen=True)
class Question:
    """One input row."""

    id: str
    question: str
    label: str


def read_questions(
    path: str | Path,
    input_key: str,
    label_key: str | None,
    max_samples: int | None = None,
    is_correct: Callable[[str, str], bool] | None = None,
) -> list[Question]:
    """The questions of a JSONL file, at most `max_samples`. Rows that repeat a question and its label are dropped.
    Without a `label_key` they have no label, "".

    Raises ValueError naming file and line for a row without one of the keys, an empty question, a label that is neither
    text nor a number or that `is_correct` cannot use, or an id that stands for two different questions; and for a file
    without any question.
    """
    questions: dict[str, Question] = {}
    for number, row in read_jsonl(path):
        where = f"{path} line {number}"
        for key in (input_key, label_key):
            if key is not None and row.get(key) is None:
                raise ValueError(f"{where}: no key {key!r}; the row has {', '.join(row) or 'none'}")
        text, label = row[input_key], "" if label_key is None else row[label_key]
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}: {input_key!r} must be a text, got {text!r}")
        if isinstance(label, bool) or not isinstance(label, str | int | float):
            raise ValueError(f"{where}: {label_key!r} must be a text or a number, got {label!r}")
        label = str(label)
        if is_correct is not None and label_key is not None:
            try:
                is_correct("", label)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        identity = str(row["id"]) if row.get("id") is not None else question_id(text, label)
        question = Question(identity, text, label)
        if questions.setdefault(identity, question) != question:
            raise ValueError(f"{where}: id {identity!r} already stands for another question")
        if len(questions) == max_samples:
            break
    if not questions:
        raise ValueError(f"{path} holds no question")
    return list(questions.values())


def question_id(question: str, label: str) -> str:
    """The id of a question that has none: stable when lines are added or moved."""
    return hashlib.sha256(f"{question}\0{label}".encode()).hexdigest()[:16]


def write_question_file(path: Path, rows: Iterable[tuple[str, str]]) -> Path:
    """Questions with their answers as JSONL. A file that holds just these is left as it is, with its date."""
    text = "".join(json.dumps({"question": question, "label": label}) + "\n" for question, label in rows)
    if not path.exists() or path.read_text() != text:
        write_atomically(path, text)
    return path
