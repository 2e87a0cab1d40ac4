"""Rows of JSONL and Parquet files, with the line they stand in."""

import json
from collections.abc import Iterator
from pathlib import Path


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
