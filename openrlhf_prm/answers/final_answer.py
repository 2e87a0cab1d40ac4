r"""What counts as a response's final answer. The first rule that finds something decides:

1. Thinking does not count: only what follows the last `</think>` is read. Thinking that never ends holds no answer.
2. The last `<answer>...</answer>`.
3. The last `\boxed{...}` (`\fbox{...}`, `\boxed 5`), together with boxes beside it that only commas and such part.
4. What follows the last `####`, or a line's `Answer:`, `A:`, `**Final answer:**`, `## Answer`.
5. What follows the last "the answer is", if it looks like a value; else the last one that is a word or two.

What follows a marker is the rest of its line or, where that is empty, the next one; a displayed formula is taken whole.
Of that, a formula in delimiters, bold text or code is the answer if it comes first ("**18** dollars"); else the text up
to the end of its sentence or to a word that begins an explanation ("7 because 3 + 5 = 8"). A response that states no
answer has none, as a response cut short.
"""

import re

_THOUGHT = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_THINKING = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
# What may stand between two boxes of one answer: "$x = \boxed{1}$ or $x = \boxed{2}$".
_BETWEEN_BOXES = re.compile(r"(?:[\s$,;&]|\\[,;!()\[\]\\]|\\q?quad|\\text\s*\{\s*(?:and|or)\s*\}|and|or|[a-zA-Z]\s*=)*")
_MARKUP = r"[\s*_`#>]*"
_STATED = re.compile(
    r"####(?!#)\s*"
    rf"|^{_MARKUP}(?:(?:the|my|our)\s+)?(?:final\s+|correct\s+)?answer(?:\s+is)?{_MARKUP}[:=]{_MARKUP}"
    rf"|^{_MARKUP}(?:the\s+)?(?:final\s+)?answer[ \t*_`:]*$"
    rf"|^{_MARKUP}A{_MARKUP}:{_MARKUP}"
    rf"|\b(?:final\s+|correct\s+)?answer(?:\s+is)?\s*[:=]{_MARKUP}",
    re.MULTILINE | re.IGNORECASE,
)
_SAID = re.compile(r"\banswer(?:s)?\s+(?:is|are|would be|should be|must be)\b\s*:?[ \t]*", re.IGNORECASE)
_DISPLAYS = (("$$", "$$"), (r"\[", r"\]"))
_DELIMITERS = (*_DISPLAYS, (r"\(", r"\)"), ("$", "$"), ("**", "**"), ("__", "__"), ("`", "`"))
_JOINED = re.compile(r"\s*(?:,\s*(?:and|or)?|;|and|or)\s*", re.IGNORECASE)
_EXPLAINED = re.compile(
    r"(?:,|\s)\s*(?:because|since|as\s+(?:we|the|it|this|there)|so\s+that|which|where|when|given\s+that|thus|hence)\b"
    r"|,\s*so\b|\s+(?:-{1,2}|[\N{EN DASH}\N{EM DASH}])\s+(?=[A-Za-z]{3})|\s\((?=[a-z]{3})",
    re.IGNORECASE,
)
_FILLERS = re.compile(
    r"(?:(?:therefore|thus|hence|then|simply|just|exactly|indeed|equal\s+to|given\s+by)\b[\s,:]*)+", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z\"'(*]|\s*$)")
_VALUE = re.compile(r"[\d$\\`]|\*\*|^\W*[A-Za-z]\W*$|^\W*(?:yes|no|true|false|none)\W*$", re.IGNORECASE)


def extract_answer(response: str) -> str | None:
    """The final answer of a response as text, by the rules above; None where it states none."""
    text = _without_thinking(response)
    if text is None:
        return None
    if tagged := _TAGGED.findall(text):
        return _boxed(tagged[-1]) or tagged[-1].strip() or None
    if _BOX.search(text):
        return _boxed(text)
    stated = [_after(text, match.end()) for match in _STATED.finditer(text)]
    if stated := [answer for answer in stated if answer]:
        return stated[-1]
    said = [_after(text, match.end()) for match in _SAID.finditer(text)]
    said = [answer for answer in said if answer]
    values = [answer for answer in said if _VALUE.search(answer)]
    return (values or said or [None])[-1]


def _without_thinking(text: str) -> str | None:
    ends = list(_THOUGHT.finditer(text))
    text = text[ends[-1].end() :] if ends else text
    return None if _THINKING.search(text) else text


def _boxed(text: str) -> str | None:
    """The contents of the last group of boxes, joined by commas; None where a box does not close or holds nothing."""
    answer: list[str] = []
    end_before = None
    for match in _BOX.finditer(text):
        content, end = _box_content(text, match.end())
        if end_before is None or not _BETWEEN_BOXES.fullmatch(text[end_before : match.start()]):
            answer = []
        answer.append(content)
        end_before = end
    if not answer or None in answer:
        return None
    return ", ".join(answer) or None


def _box_content(text: str, start: int) -> tuple[str | None, int]:
    """What is in the box whose braces, or whose single token, begin at `start`, and where it ends."""
    if text[start : start + 1] != "{":
        token = re.compile(r"\\[a-zA-Z]+|[^\s$]").match(text, start)
        number = re.compile(r"-?\d[\d,]*(?:\.\d+)?").match(text, start)
        match = number or token
        return (match.group(), match.end()) if match else (None, start)
    depth = 0
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0) if text[position - 1] != "\\" else 0
        if depth == 0:
            return text[start + 1 : position].strip(), position + 1
    return None, len(text)


def _after(text: str, start: int) -> str | None:
    """The answer that begins at or after `start`, where a marker ends."""
    rest = text[start:].lstrip(" \t*_:")
    if not rest.split("\n", 1)[0].strip():
        rest = rest.lstrip()
    rest = _FILLERS.sub("", rest.lstrip(">"), count=1) if _FILLERS.match(rest.lstrip(">")) else rest.lstrip(">")
    if delimited := _delimited(rest):
        return delimited
    line = rest.split("\n", 1)[0]
    for opening, closing in _DELIMITERS:  # "x = $5$": the formula goes on with the line
        if line.count(opening) == 1 and opening in (r"\[", "$$") and closing in rest[len(line) :]:
            line = rest[: rest.index(closing, len(line)) + len(closing)].replace("\n", " ")
    if end := _SENTENCE_END.search(line):
        line = line[: end.start()]
    if explained := _EXPLAINED.search(line):
        line = line[: explained.start()]
    if said := list(_SAID.finditer(line)):  # "Final answer: the final answer is 42"
        return _after(line, said[-1].end())
    return line.strip().strip("*_`").strip().rstrip(".,;:").strip() or None


def _closing(text: str, delimiter: str, start: int) -> int:
    r"""Where the delimiter stands next, -1 where it does not; `\$` is no delimiter."""
    match = re.compile(rf"(?<!\\){re.escape(delimiter)}").search(text, start)
    return match.start() if match else -1


def _delimited(text: str) -> str | None:
    """The formula, bold text or code with which `text` begins, and those joined to it by "and" or a comma; None where
    it begins with none, or where more than words follows.
    """
    parts: list[str] = []
    position = 0
    while True:
        # A dollar before a number may be money: "$18".
        pair = next((p for p in _DELIMITERS if text.startswith(p[0], position)), None)
        end = _closing(text, pair[1], position + len(pair[0])) if pair else -1
        if end < 0 or (pair not in _DISPLAYS and "\n" in text[position:end]):
            break
        parts.append(text[position + len(pair[0]) : end].strip())
        position = end + len(pair[1])
        joint = _JOINED.match(text, position)
        if not joint:
            break
        following = joint.end()
        if not any(text.startswith(opening, following) for opening, _ in _DELIMITERS):
            break
        position = following
    if not parts or not all(parts):
        return None
    tail = text[position:].split("\n", 1)[0]
    if re.match(r"\s*[-+*/^=\d]", tail) and not tail.startswith("**"):
        return None  # the formula goes on outside its delimiters
    inner = [_delimited(part) or part for part in parts]
    return ", ".join(part.strip().rstrip(".").strip() for part in inner) or None
