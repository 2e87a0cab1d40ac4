"""The durable file of labels: a question is on disk the moment it is finished (schema: `records`)."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from openrlhf_prm.annotation.records import AnnotatedQuestion
from openrlhf_prm.data.questions import Question
from vllm_prm.durable_file import DurableFile, refuse_other_settings, write_atomically


class LabelFile:
    """Labelled solutions in one `DurableFile`, dropped questions in another beside it. Use as a context manager; one
    process may hold them at a time.

    `finished` holds the ids of the questions that need no work. The settings stand in a file of their own, so that
    every line of the labels is a record that training reads.
    """

    def __init__(self, path: str | Path, settings: dict):
        """Raises ValueError where the file has other settings, was made by something else, or another run holds it."""
        self.path = Path(path)
        settings_path = self.path.with_name(self.path.name + ".settings.json")
        if not settings_path.exists() and self.path.is_file() and self.path.stat().st_size:
            raise ValueError(f"{self.path} exists and has no {settings_path.name}; choose another file")
        if settings_path.exists():
            refuse_other_settings(self.path, _read_settings(settings_path), json.loads(json.dumps(settings)))
        self._labels = DurableFile(self.path, None, _solution_place)
        try:
            self._dropped = DurableFile(self.path.with_name(self.path.name + ".dropped.jsonl"), None, _question_place)
        except ValueError:
            self._labels.close()
            raise
        self.finished: set[str] = self._labels.finished | self._dropped.finished
        if not settings_path.exists():
            write_atomically(settings_path, json.dumps(settings, indent=2) + "\n")

    def append(self, question: Question, annotated: AnnotatedQuestion) -> None:
        """Writes the labels of a question, or why it has none, and returns when that is on disk."""
        self.append_all([(question, annotated)])

    def append_all(self, finished: Sequence[tuple[Question, AnnotatedQuestion]]) -> None:
        """As `append`, for several questions with one wait for the disk."""
        labels, dropped = [], []
        for question, annotated in finished:
            assert question.id not in self.finished, f"question {question.id} is already finished"
            text = {"question": question.question, "label": question.label}
            root = {"root": asdict(annotated.root)}
            if annotated.dropped:
                dropped.append({"id": question.id, **text, "reason": annotated.dropped, **root})
            for index, solution in enumerate(annotated.solutions):
                head = {"id": question.id, "solution": index, "solutions": len(annotated.solutions)}
                labels.append({**head, **text, **root, **asdict(solution)})
        for file, rows in ((self._labels, labels), (self._dropped, dropped)):
            if rows:
                file.append(rows)
        self.finished.update(question.id for question, _ in finished)

    def counts(self, wanted: set[str]) -> tuple[int, Counter]:
        """Of the questions with these ids, how many have labels, and how many have none why."""
        dropped = Counter(row["reason"] for row in self._dropped.rows() if row["id"] in wanted)
        return len(self._labels.finished & wanted), dropped

    def __enter__(self) -> "LabelFile":
        return self

    def __exit__(self, *_) -> None:
        self._labels.close()
        self._dropped.close()


def _read_settings(path: Path) -> dict:
    try:
        settings = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); choose another file for the labels") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds no settings; choose another file for the labels")
    return settings


def _solution_place(record: dict, before: int) -> tuple[str, int, int]:
    return record["id"], record["solution"], record["solutions"]


def _question_place(row: dict, before: int) -> tuple[str, int, int]:
    return row["id"], 0, 1
