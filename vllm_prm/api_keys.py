"""API keys: from the environment or a file, never from a command line, which every user of the machine can read.

No message ever holds a key, nor does a header that an HTTP client would refuse and print.
"""

import os
from collections.abc import Mapping
from pathlib import Path

IN_FILE = "_FILE"
"""Behind a variable's name: the variable that names a file with the key, as secrets of containers are."""


def key_is_set(name: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment variable `name` holds a key, or `name` + `_FILE` a file's path."""
    return bool(environment.get(name) or environment.get(name + IN_FILE))


def key_from(name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key in the environment variable `name`, or in the file that `name` + `_FILE` names; None where neither is
    set. White space around it is no part of it, since files with secrets end in a newline.

    Raises ValueError, without the key, for a file that cannot be read and what is no key: printable ASCII, no spaces.
    """
    source, text = f"the environment variable {name}", environment.get(name)
    if not text and (path := environment.get(name + IN_FILE)):
        source = f"the file {path} ({name + IN_FILE})"
        try:
            text = Path(path).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{source} cannot be read: {getattr(error, 'strerror', 'no text')}") from None
    return None if text is None else checked_key(text, source)


def checked_key(text: str, source: str) -> str:
    """The key in `text`. Raises ValueError, which names its `source` alone, for what is no key."""
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"{source} must hold a key of printable ASCII characters without spaces")
    return key
