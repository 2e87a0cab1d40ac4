"""Reading benchmarks' files. Each function raises ValueError naming the file and the row that is wrong."""

import json
from collections.abc import Sequence
from pathlib import Path


def source_files(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of a folder with one of the suffixes, or the file itself."""
    if path.is_file():
        return [path]
    files = sorted(file for file in path.glob("*") if file.suffix in suffixes) if path.is_dir() else []
    if not files:
        raise ValueError(f"--data.input: no {' or '.join(suffixes)} file in {path}")
    return files


def read_array(path: Path) -> list[tuple[str, dict]]:
    """(where, row) of a JSON array of objects."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected a JSON array, got {type(rows).__name__}")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{path} entry {index}: expected a JSON object, got {type(row).__name__}")
    return [(f"{path} entry {index}", row) for index, row in enumerate(rows)]


def text_of(row: dict, key: str, where: str) -> str:
    """A text of a row that is not empty."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {key!r} must be a text, got {value!r}")
    return value


def steps_of(row: dict, key: str, where: str) -> list[str]:
    """The list of steps of a row."""
    value = row.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(step, str) for step in value):
        raise ValueError(f"{where}: {key!r} must be a list of texts that is not empty")
    return value
