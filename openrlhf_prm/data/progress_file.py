"""Finished work that survives a kill: an append-only JSONL file with one row per finished key.

Its first line holds the settings that the rows depend on, `{"settings": {...}}`; every other line is a row with a
`key`.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from openrlhf_prm.data.files import refuse_other_settings

_HEAD = b'{"settings":'


class ProgressFile:
    """Use as a context manager; one process may hold a file at a time. Opening a file that a killed run left behind
    cuts off a torn last line; `finished` holds the keys that need no work.
    """

    def __init__(self, path: str | Path, settings: dict):
        """Raises ValueError where the file has other settings, is something else, or another run holds it."""
        self.path = Path(path)
        self.finished: set[str] = set()
        if self.path.is_dir():
            raise ValueError(f"{path} is a folder, not a file")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab")  # noqa: SIM115
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ValueError(f"{path} is being written by another run") from None
        try:
            self._file.truncate(self._scan(json.loads(json.dumps(settings))))
        except ValueError:
            self._file.close()
            raise
        if not self.path.stat().st_size:
            self._write([{"settings": settings}])

    def append(self, rows: Sequence[dict]) -> None:
        """Writes rows, each with a `key` that is not there yet, and returns when they are on disk."""
        keys = [row["key"] for row in rows]
        assert len(set(keys)) == len(keys) and not self.finished & set(keys), "a key is already finished"
        self._write(rows)
        self.finished.update(keys)

    def rows(self) -> Iterator[dict]:
        """Every row, in the order in which they were finished."""
        with open(self.path, "rb") as file:
            next(file)
            yield from map(json.loads, file)

    def _write(self, rows: Sequence[dict]) -> None:
        self._file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _scan(self, settings: dict) -> int:
        """Reads the keys; the offset in bytes at which the last whole line ends."""
        end = 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n") and (number > 1 or line.startswith(_HEAD)):
                    break  # torn by a kill
                try:
                    row = json.loads(line)
                    found = row["settings"] if number == 1 else row["key"]
                except (ValueError, KeyError, TypeError):
                    raise ValueError(
                        f"{self.path} line {number}: not a line of this command; choose another file"
                    ) from None
                if number == 1:
                    refuse_other_settings(self.path, found, settings)
                else:
                    self.finished.add(found)
                end += len(line)
        return end

    def __enter__(self) -> "ProgressFile":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()
