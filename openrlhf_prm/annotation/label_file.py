"""The durable file of labels: a question is on disk the moment it is finished (schema: `records`)."""

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from openrlhf_prm.annotation.records import AnnotatedQuestion
from openrlhf_prm.data.files import refuse_other_settings
from openrlhf_prm.data.questions import Question


class LabelFile:
    """Append-only, durable file of labelled solutions, with the file of dropped questions beside it. Use as a context
    manager; one process may hold it at a time.

    Opening files that a killed run left behind cuts off the last question where not all of it is there; `finished`
    then holds the ids of the questions that need no work.
    """

    def __init__(self, path: str | Path, settings: dict):
        """Raises ValueError where the file has other settings, was made by something else, or another run holds it."""
        self.path = Path(path)
        self.dropped_path = self.path.with_name(self.path.name + ".dropped.jsonl")
        self.settings_path = self.path.with_name(self.path.name + ".settings.json")
        if self.path.is_dir():
            raise ValueError(f"{path} is a folder, not a file")
        self._check_settings(json.loads(json.dumps(settings)))
        self.finished: set[str] = set()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file, self.dropped_file = (open(each, "ab") for each in (self.path, self.dropped_path))  # noqa: SIM115
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ends = [_scan(each, self.finished) for each in (self.path, self.dropped_path)]
        except OSError:
            self.__exit__()
            raise ValueError(f"{path} is being written by another run") from None
        except ValueError:
            self.__exit__()
            raise
        for file, end in zip((self.file, self.dropped_file), ends, strict=True):
            file.truncate(end)
        if not self.settings_path.exists():
            _write_durably(self.settings_path, json.dumps(settings, indent=2) + "\n")

    def append(self, question: Question, found: AnnotatedQuestion) -> None:
        """Writes what was found for a question and returns when it is on disk."""
        self.append_all([(question, found)])

    def append_all(self, finished: Sequence[tuple[Question, AnnotatedQuestion]]) -> None:
        """As `append`, for several questions with one wait for the disk."""
        rows: dict[BinaryIO, list[dict]] = {self.file: [], self.dropped_file: []}
        for question, found in finished:
            assert question.id not in self.finished, f"question {question.id} is already finished"
            text = {"question": question.question, "label": question.label}
            root = {"root": asdict(found.root)}
            if found.dropped:
                rows[self.dropped_file].append({"id": question.id, **text, "reason": found.dropped, **root})
            for index, solution in enumerate(found.solutions):
                head = {"id": question.id, "solution": index, "solutions": len(found.solutions)}
                rows[self.file].append({**head, **text, **root, **asdict(solution)})
        for file, lines in rows.items():
            if lines:
                file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines).encode())
                file.flush()
                os.fsync(file.fileno())
        self.finished.update(question.id for question, _ in finished)

    def _check_settings(self, settings: dict) -> None:
        if not self.settings_path.exists():
            if self.path.exists() and self.path.stat().st_size:
                raise ValueError(f"{self.path} exists and has no {self.settings_path.name}; choose another file")
            return
        refuse_other_settings(self.path, json.loads(self.settings_path.read_text()), settings)

    def __enter__(self) -> "LabelFile":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()
        self.dropped_file.close()


def _scan(path: Path, finished: set[str]) -> int:
    """Adds the ids of a file's finished questions to `finished`; the offset in bytes at which the last of them ends."""
    end = offset = 0
    expected = (None, 0, 0)  # id, next solution, how many
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            offset += len(line)
            if not line.endswith(b"\n"):
                break  # torn by a kill
            try:
                row = json.loads(line)
                identity = row["id"]
                index, count = (0, 1) if "reason" in row else (row["solution"], row["solutions"])
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
    return end


def _write_durably(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
