"""Files of rows -> rows in another form, without repetitions, in an order that does not depend on the files."""

import functools
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from openrlhf_prm.convert.public_data import PUBLIC_FORMATS
from openrlhf_prm.data.formats_out import LabelStyle, label_rows
from openrlhf_prm.data.rows import read_rows
from vllm_prm.durable_file import write_atomically


def convert(
    paths: Sequence[str], form: str, strict: bool = False, style: LabelStyle | None = None
) -> tuple[list[tuple[str, dict]], list[str]]:
    """The (problem, row) pairs of all files without repetitions, and the faults of rows left out.

    `form`: what the files are (`PUBLIC_FORMATS`), or what their step labels become (`LABEL_FORMATS`) in `style`. Public
    data comes in the order of a hash, so that the first N rows are a sample of all; labels keep their order. Raises
    ValueError naming file and line: for what is not JSON always, for a row that cannot be used under `strict`.
    """
    style = style or LabelStyle()
    rows_of = PUBLIC_FORMATS[form] if form in PUBLIC_FORMATS else functools.partial(label_rows, form, style=style)
    converted: dict[str, tuple[str, dict]] = {}
    faults: list[str] = []
    for path in paths:
        for number, row in read_rows(path):
            try:
                rows = rows_of(row)
            except ValueError as error:
                if strict:
                    raise ValueError(f"{path} line {number}: {error}") from None
                faults.append(f"{path} line {number}: {error}")
                continue
            for problem, made in rows:
                converted.setdefault(_hash(json.dumps(made)), (problem, made))
    return [converted[key] for key in (sorted(converted) if form in PUBLIC_FORMATS else converted)], faults


def split_by_problem(rows: Sequence[tuple[str, dict]], heldout_share: float) -> Iterator[list[dict]]:
    """The rows for training and those held out: a problem is held out, with all its rows, where its hash, as a number
    in [0, 1), is below the share.
    """
    held = [int(_hash(problem), 16) / 16**64 < heldout_share for problem, _ in rows]
    for side in (False, True):
        yield [row for (_, row), out in zip(rows, held, strict=True) if out is side]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_rows(path: Path, rows: Sequence[dict]) -> None:
    """Writes Parquet where the name ends so, else JSONL; the file appears whole or not at all."""
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        content = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), content)
        write_atomically(path, content.getvalue())
    else:
        write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
