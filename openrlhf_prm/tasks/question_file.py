"""Questions as the commands read them."""

import json
from collections.abc import Iterable
from pathlib import Path

from openrlhf_prm.files import write_atomically

KEYS = ("--data.input_key", "question", "--data.label_key", "label")
"""The flags that say so."""


def write_question_file(path: Path, rows: Iterable[tuple[str, str]]) -> Path:
    """Questions with their answers as JSONL. A file that holds just these is left as it is, with its date."""
    text = "".join(json.dumps({"question": question, "label": label}) + "\n" for question, label in rows)
    if not path.exists() or path.read_text() != text:
        write_atomically(path, text)
    return path
