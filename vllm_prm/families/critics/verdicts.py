r"""Reading verdicts out of generated critiques. Pure functions of text; nothing in it is ever executed.

Every function gives what it read or a `Malformed` that says what is wrong; none raises, whatever the text. Two kinds of
text are no verdict and are cut out first: code (fenced blocks, `<code>`), and a step of the solution quoted word for
word, because a step may contain `\boxed{correct}` itself. What cannot be read is malformed, never a guess.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# A block that is never closed reaches to the end.
_CODE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|<code>.*?(?:</code>|\Z)", re.DOTALL | re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_WRAPPED = re.compile(r"\\(?:text|textbf|textrm|textit|mathrm|mathbf)\s*\{([^{}]*)\}")
_HEADING = re.compile(
    r"^[ \t>*#_-]*step[ \t]+(\d{1,6})[ \t*_]*(?:\([^()\n]*\)[ \t*_]*)?[:.)]", re.MULTILINE | re.IGNORECASE
)
_INDEX = re.compile(r"(?:paragraph[\s_\\]*)?([+-]?\d{1,6})", re.IGNORECASE)


@dataclass(frozen=True)
class Malformed:
    """A critique, or a judgement in it, that gives no verdict."""

    reason: str


def boxed(text: str, steps: Sequence[str] = ()) -> list[tuple[int, str]]:
    r"""Every `\boxed{...}` outside code and quoted steps: where it ends in the text that remains, and its content
    without white space around it and without `\text{}`."""
    return [(match.end(), _content(match)) for match in _BOXED.finditer(_spoken(text, steps))]


def _content(match: re.Match[str]) -> str:
    return _WRAPPED.sub(r"\1", match[1]).strip()


def _spoken(text: str, steps: Sequence[str]) -> str:
    text = _CODE.sub("", text)
    for step in sorted({step.strip() for step in steps if "\\boxed" in step}, key=len, reverse=True):
        text = text.replace(step, "")
    return text


def step_verdicts(critique: str, steps: Sequence[str]) -> list[bool] | Malformed:
    r"""One verdict per step from `\boxed{correct}` and `\boxed{incorrect}`: S steps -> S.

    A verdict belongs to the last heading `Step i:` before it, the last one under a heading counts, and those before the
    first heading are the critic's plan. Without any heading verdicts belong to the steps in order. Steps without one
    are incorrect after an incorrect step, as critics stop there (ThinkPRM, arXiv:2504.16828), and make the critique
    malformed before it. So do verdicts on steps there are not, but reading ends where the critic goes on to the step
    after the last, as its author ends its writing there.
    """
    text = _spoken(critique, steps)
    beyond = [match.start() for match in _HEADING.finditer(text) if int(match[1]) == len(steps) + 1]
    text = text[: beyond[0]] if beyond else text
    verdicts = [
        (match.start(), content == "correct")
        for match in _BOXED.finditer(text)
        if (content := _content(match).lower()) in ("correct", "incorrect")
    ]
    if not verdicts:
        return Malformed("no verdict")
    headings = [(match.start(), int(match[1])) for match in _HEADING.finditer(text)]
    if not headings:
        if len(verdicts) > len(steps):
            return Malformed(f"{len(verdicts)} verdicts on {len(steps)} steps")
        verdict_of = {number: verdict for number, (_, verdict) in enumerate(verdicts, start=1)}
    else:
        verdict_of = {}
        for at, verdict in verdicts:
            before = [number for start, number in headings if start < at]
            if before:
                verdict_of[before[-1]] = verdict
        if strange := [number for number in verdict_of if not 1 <= number <= len(steps)]:
            return Malformed(f"a verdict on step {strange[0]} of {len(steps)}")
    judged: list[bool] = []
    for number in range(1, len(steps) + 1):
        if number not in verdict_of and False not in judged:
            return Malformed(f"no verdict on step {number}")
        judged.append(verdict_of.get(number, False))
    return judged


def judgement(text: str) -> bool | Malformed:
    r"""The verdict in `\boxed{Yes}` or `\boxed{No}`; a text with both contradicts itself and is malformed."""
    words = {content.lower() for _, content in boxed(text)} & {"yes", "no"}
    if len(words) != 1:
        return Malformed("both Yes and No" if words else "no judgement")
    return "yes" in words


def first_error(critique: str, steps: Sequence[str]) -> int | Malformed:
    r"""The index in the last `\boxed{}`: 0-based, -1 for none (ProcessBench, arXiv:2412.06559)."""
    contents = boxed(critique, steps)
    if not contents:
        return Malformed("no index")
    match = _INDEX.fullmatch(contents[-1][1])
    if match is None:
        return Malformed("the last box holds no index")
    index = int(match[1])
    return index if -1 <= index < len(steps) else Malformed(f"index {index} of {len(steps)} paragraphs")
