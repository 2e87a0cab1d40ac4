r"""Where reasoning steps end in real text: the splitter `auto`.

Some parts of a text are never cut: code fences, `$$` and `\[` displays, LaTeX environments, tables. Outside of them the
first of these that the text has decides:

1. Blank lines: paragraphs are steps, as the published segmentations (ProcessBench, PRM800K) have them.
2. Markers at the start of a line, two or more: "Step 3:", "**Step 3:**", "## Step 3", "Step 3 -".
3. Lines. A displayed formula, a table or a fence belongs to the line before it, and so do the lines after one that ends
   in a colon: a list whole, else the one that follows.
4. Sentences, for a long text in one line; formulas, decimals and abbreviations end none.

No piece is a bare delimiter. Offsets are those of the characters after which a step ends, so the pieces joined are the
text.
"""

import re
from collections.abc import Sequence

LONG = 400
"""Characters of a single line from which sentences are steps."""

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n.*?^[ \t]*\1[ \t]*$", re.MULTILINE | re.DOTALL)
_DISPLAY = re.compile(r"\$\$.*?\$\$|\\\[.*?\\\]", re.DOTALL)
_ENVIRONMENT = re.compile(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL)
_TABLE = re.compile(r"(?:^[ \t]*\|[^\n]*\|[ \t]*(?:\r?\n|\Z)){2,}", re.MULTILINE)
_BLANK = re.compile(r"(?:\r?\n[ \t]*){2,}")
_LINE_END = re.compile(r"\r?\n[ \t]*")
_MARKER = re.compile(
    r"^[ \t>]*(?:[#*_]+[ \t]*)*step[ \t]*\d+\b(?=[ \t*_]*(?:[:.)]|-|\N{EN DASH}|\N{EM DASH}|\r?$))", re.I | re.M
)
_ITEM = re.compile(r"[ \t]*(?:[-*+\N{BULLET}][ \t]+|\(?\d{1,2}[.)][ \t]+|\(?[a-z][.)][ \t]+)")
_FORMULA_LINE = re.compile(r"[ \t]*(?:\\\[|\$\$|\\begin\{|```|~~~|\|)")
_DELIMITER = re.compile(r"\s*(?:\\[\[\]()]|\$\$?|`{3,}\w*|~{3,}|\\(?:begin|end)\{\w+\*?\}|[-*_]{3,}|\.)?\s*")
_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[A-Z\"'(\\$])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|Dr|Mr|Mrs|Ms|Prof|Fig|Eq|No|St|approx)|\b[A-Z]|\b\d+)\.$")
_INLINE = re.compile(r"\$[^$\n]+\$|\\\(.*?\\\)|`[^`\n]+`", re.DOTALL)


def auto_ends(text: str) -> list[int]:
    """The offsets at which steps end, by the rules above, but for the end of the text."""
    kept = _kept_whole(text)
    ends = blank_line_ends(text)
    if not ends:
        markers = marker_ends(text)
        ends = markers if len(markers) > 1 or (markers and _MARKER.match(text)) else []
    if not ends:
        ends = _line_ends(text, kept)
    if not ends and len(text) > LONG:
        ends = _sentence_ends(text, [*kept, *_spans(_INLINE, text)])
    return _without_bare_delimiters(text, ends)


def blank_line_ends(text: str) -> list[int]:
    """Ends of paragraphs, with the blank lines behind them; none within what is never cut."""
    return _outside((match.end() for match in _BLANK.finditer(text)), _kept_whole(text))


def marker_ends(text: str) -> list[int]:
    """Before each line that begins with a step's marker, but the first of the text."""
    starts = (match.start() for match in _MARKER.finditer(text) if text[: match.start()].strip())
    return _outside(starts, _kept_whole(text))


def _spans(pattern: re.Pattern, text: str) -> list[tuple[int, int]]:
    return [match.span() for match in pattern.finditer(text)]


def _kept_whole(text: str) -> list[tuple[int, int]]:
    """Spans that no step ends in; what looks like a display but holds several paragraphs is a delimiter left open."""
    fences = _spans(_FENCE, text)
    formulas = [span for pattern in (_DISPLAY, _ENVIRONMENT) for span in _spans(pattern, text)]
    formulas = [(start, end) for start, end in formulas if end - start < 4000]
    tables = [(start, start + len(text[start:end].rstrip())) for start, end in _spans(_TABLE, text)]
    return [*fences, *formulas, *tables]


def _outside(ends, kept: Sequence[tuple[int, int]]) -> list[int]:
    return [end for end in ends if not any(start < end < stop for start, stop in kept)]


def _line_ends(text: str, kept: Sequence[tuple[int, int]]) -> list[int]:
    """Ends of lines, but before a formula and within what a colon announces."""
    ends: list[int] = []
    announced = in_list = False
    begin = 0
    for match in _LINE_END.finditer(text):
        if any(start < match.end() < stop for start, stop in kept):
            continue
        line, following = text[begin : match.start()], text[match.start() + 1 :].lstrip("\r\n")
        announced = line.rstrip(" *_").endswith(":") or (announced and in_list)
        in_list = bool(_ITEM.match(following))
        joins = _FORMULA_LINE.match(following) or (announced and (in_list or line.rstrip(" *_").endswith(":")))
        if not joins and following.strip():
            ends.append(match.end())
        begin = match.end()
    return ends


def _sentence_ends(text: str, kept: Sequence[tuple[int, int]]) -> list[int]:
    sentences = [
        match for match in _SENTENCE.finditer(text) if not _ABBREVIATION.search(text[: match.start()].rstrip("\"')]"))
    ]
    return _outside((match.end() for match in sentences), kept)


def _without_bare_delimiters(text: str, ends: Sequence[int]) -> list[int]:
    """The ends, but those that would leave a piece of a delimiter alone: it joins the piece before it, at the start the
    one after it.
    """
    kept: list[int] = []
    for end in [*ends, len(text)]:
        piece = text[kept[-1] if kept else 0 : end]
        if _DELIMITER.fullmatch(piece):
            if kept:
                kept[-1] = end
        else:
            kept.append(end)
    return [end for end in kept if end < len(text)]
