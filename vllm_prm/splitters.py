"""Text -> its reasoning steps, by a splitter: a function from a text to the character offsets at which steps end."""

import re
from collections.abc import Callable
from itertools import pairwise

from vllm_prm.extension_files import resolve
from vllm_prm.text_structure import auto_ends, blank_line_ends, marker_ends

# Printable characters that show nothing: Hangul fillers and the empty Braille cell.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")


def visible(text: str) -> bool:
    """Whether a text shows anything: white space, control, zero-width and other blank characters do not."""
    return any(letter.isprintable() and not letter.isspace() and letter not in _BLANK for letter in text)


def _ends_after(pattern: str) -> Callable[[str], list[int]]:
    compiled = re.compile(pattern)
    return lambda text: [match.end() for match in compiled.finditer(text)]


# name -> function from the text of a response to the character offsets at which a step ends.
STEP_SPLITTERS: dict[str, Callable[[str], list[int]]] = {
    "auto": auto_ends,
    "newline": _ends_after(r"\n+"),
    "blank_line": blank_line_ends,
    "marker": marker_ends,
}


def split_text(text: str, splitter: str) -> list[str]:
    """The steps of a text; joined they give the text back. Pieces that show nothing join the step before them.

    splitter: a key of `STEP_SPLITTERS`, or `FILE.py:function`. Raises ValueError for an unknown one, and for one whose
    offsets do not rise within the text. An empty text has no steps.
    """
    ends = [*resolve(STEP_SPLITTERS, splitter, "step splitter")(text), len(text)]
    if any(end < before for before, end in pairwise([0, *ends])):
        raise ValueError(f"step splitter {splitter} must give offsets that rise within the text, got {ends[:-1]}")
    pieces, start = [], 0
    for end in ends:
        piece = text[start:end]
        if pieces and (not visible(piece) or not visible(pieces[-1])):
            pieces[-1] += piece
        elif piece:
            pieces.append(piece)
        start = end
    return pieces
