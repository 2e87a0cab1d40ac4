"""Writing results, and going on with them."""

import os
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file that appears whole or not at all, making its folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def refuse_other_settings(path: Path, before: dict, settings: dict) -> None:
    """Raises ValueError naming each difference, where the file to go on with was made with other settings."""
    changed = [
        f"{key} was {before.get(key)!r}, is {settings.get(key)!r}"
        for key in sorted({*before, *settings})
        if before.get(key) != settings.get(key)
    ]
    if changed:
        raise ValueError(f"{path} was made with other settings ({'; '.join(changed)}); choose another file")
