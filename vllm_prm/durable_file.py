"""Work that survives a kill: rows in an append-only JSONL file, and files that appear whole or not at all.

Everything in this project that goes on where it stopped goes on through this module: labels, samples, scores, the
stages of a recipe and the cells of a benchmark. It lies in `vllm_prm` because `vllm-prm score` needs it too, and
`vllm_prm` imports nothing of `openrlhf_prm`.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vllm_prm.disk import naming

Place = Callable[[dict, int], tuple[str, int, int]]
"""What a row and the number of rows before it say: the key, which of the key's rows this is, and how many it has."""

_HEAD = b'{"settings":'


def by_key(row: dict, before: int) -> tuple[str, int, int]:
    """One row per key, which stands in the row."""
    return row["key"], 0, 1


def in_order(row: dict, before: int) -> tuple[str, int, int]:
    """One row per key, which is the row's number from 0."""
    return str(before), 0, 1


class DurableFile:
    """Rows that are on disk when `append` returns. Use as a context manager; one process may hold a file at a time.

    The first line is `{"settings": {...}}`, what the rows depend on; with `settings` None there is no such line, and
    who opens the file keeps the settings elsewhere. The rows of a key stand together. Opening a file that a killed run
    left behind cuts off a torn line, and a last key that lacks rows; `finished` holds the keys that need no work.
    """

    def __init__(self, path: str | Path, settings: dict | None, place: Place = by_key):
        """Raises ValueError where the file has other settings, is something else, or another run holds it."""
        self.path = Path(path)
        self.finished: set[str] = set()
        self._place, self._has_head, self._count = place, settings is not None, 0
        self._file = self._held()
        try:
            end = self._scan(json.loads(json.dumps(settings)))
            self._file.truncate(end)
            if self._has_head and not end:
                self._write([{"settings": settings}])
        except BaseException:
            self.close()
            raise

    def append(self, rows: Sequence[dict]) -> None:
        """Writes rows, all those of each key and of keys that are not there yet; returns when they are on disk.

        Raises ValueError for a number that is not finite, which JSON does not know; nothing is written then.
        """
        keys = _Keys(self._place, self.finished, self._count)
        fresh = [key for row in rows if (key := keys.take(row)) is not None]
        assert keys.whole and len(set(fresh)) == len(fresh), "a key lacks rows, or has some twice"
        self._write(rows)
        self._count = keys.count
        self.finished.update(fresh)

    def rows(self) -> Iterator[dict]:
        """Every row, in the order in which they were finished."""
        return map(json.loads, self.lines())

    def lines(self) -> Iterator[bytes]:
        """Every row as it stands in the file."""
        with open(self.path, "rb") as file:
            if self._has_head:
                next(file)
            yield from file

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()

    def _held(self):
        if self.path.is_dir():
            raise ValueError(f"{self.path} is a folder, not a file")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = not self.path.exists()
            # Unbuffered: rows that could not be written must not be tried again when the file is closed.
            file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise ValueError(f"{self.path} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            if not isinstance(error, BlockingIOError):
                raise
            raise ValueError(f"{self.path} is being written by another run{_holder(self.path)}") from None
        if fresh:
            _sync_folder(self.path.parent)
        return file

    def _write(self, rows: Iterable[dict]) -> None:
        content = memoryview(b"".join(map(json_line, rows)))
        number = self._file.fileno()
        end = os.fstat(number).st_size
        with naming(self.path):
            try:
                while content:
                    content = content[self._file.write(content) :]
                os.fsync(number)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(number, end)  # half a row is none
                raise

    def _scan(self, settings: Any) -> int:
        """Reads the keys; the offset in bytes at which the last whole key, or the settings, end."""
        end = offset = 0
        keys = _Keys(self._place, self.finished)
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                offset += len(line)
                is_head = self._has_head and number == 1
                if not line.endswith(b"\n") and not (is_head and _is_foreign(line)):
                    break  # torn by a kill
                try:
                    row = json.loads(line)
                    before = row["settings"] if is_head else None
                    key = None if is_head else keys.take(row)
                except _OutOfOrder as error:
                    raise ValueError(f"{self.path} line {number}: {error}") from None
                except (ValueError, KeyError, TypeError):
                    fault = "not a line of this command; choose another file"
                    raise ValueError(f"{self.path} line {number}: {fault}") from None
                if is_head:
                    refuse_other_settings(self.path, before, settings)
                elif key is None:
                    continue
                else:
                    self.finished.add(key)
                end, self._count = offset, keys.count
        return end

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _holder(path: Path) -> str:
    """What is known of the process that holds a file: its number and its command; "" where it runs on another machine,
    or the system does not say.
    """
    try:
        inode = str(path.stat().st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode:
                command = Path(f"/proc/{fields[4]}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f", process {fields[4]}: {command.strip()[:200]}"
    except (OSError, IndexError):
        pass
    return ""


def _is_foreign(line: bytes) -> bool:
    """Whether what a file without a line break holds is not the beginning of a line of settings."""
    return not line.startswith(_HEAD) and not _HEAD.startswith(line)


class _OutOfOrder(AssertionError):
    """A row does not follow the one before it: a damaged file, or in `append` a fault of the program."""


class _Keys:
    """Rows, one after the other -> the keys that are whole."""

    def __init__(self, place: Place, finished: set[str], count: int = 0):
        self.count = count
        self._place, self._finished = place, finished
        self._next: tuple[str, int, int] | None = None  # what the next row must be, in the middle of a key

    @property
    def whole(self) -> bool:
        """Whether the last key has all its rows."""
        return self._next is None

    def take(self, row: dict) -> str | None:
        """The key that this row completes, None where more are to come. Raises _OutOfOrder."""
        key, index, of = place = self._place(row, self.count)
        if key in self._finished:
            raise _OutOfOrder(f"{key!r} stands in the file already")
        if place != (self._next or (key, 0, of)):
            raise _OutOfOrder(f"row {index} of {key!r} is out of order")
        self.count += 1
        self._next = (key, index + 1, of) if index + 1 < of else None
        return key if self.whole else None


def write_atomically(path: Path, content: str | bytes | Iterable[bytes]) -> None:
    """Writes a file that appears whole, and on disk, or not at all; makes its folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    content = content.encode() if isinstance(content, str) else content
    try:
        with naming(path), open(partial, "wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def json_line(row: dict) -> bytes:
    """A line of a JSONL file. Raises ValueError for NaN and infinity, which JSON does not know."""
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can say and UTF-8 cannot
        text = json.dumps(row, allow_nan=False).encode()
    return text + b"\n"


def refuse_other_settings(
    path: str | Path, before: dict, settings: dict, otherwise: str = "choose another file"
) -> None:
    """Raises ValueError naming each difference, where the file to go on with was made with other settings."""
    changed = [
        f"{key} was {before.get(key)!r}, is {settings.get(key)!r}"
        for key in sorted({*before, *settings})
        if before.get(key) != settings.get(key)
    ]
    if changed:
        raise ValueError(f"{path} was made with other settings ({'; '.join(changed)}); {otherwise}")


def checkpoint_state(model: str) -> str | None:
    """What tells one state of a checkpoint from another: its files' names, sizes and times of change. None for what is
    no folder.
    """
    folder = Path(model)
    if not folder.is_dir():
        return None
    files = [(file.name, file.stat()) for file in sorted(folder.iterdir()) if file.is_file()]
    facts = [(name, state.st_size, state.st_mtime_ns) for name, state in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _sync_folder(folder: Path) -> None:
    """A new name is on disk only when its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
