"""`--steps.splitter splitter.py:sentences`: a step is a sentence."""

import re


def sentences(text: str) -> list[int]:
    """The text of a response -> the character offsets at which a step ends."""
    return [match.end() for match in re.finditer(r"[.!?;\n]+\s*", text)]
