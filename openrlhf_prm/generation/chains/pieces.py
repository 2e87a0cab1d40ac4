"""What schemes share: a plan, a step as it is taken up, the look over the work."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from openrlhf_prm.generation.chains.desk import Desk
from openrlhf_prm.generation.chains.draft import ROOT, Draft, Event, NoChain, Part


async def recheck(desk: Desk, draft: Draft) -> None:
    """Puts what the verifier says of the steps before the answer; one that is cut or empty is left out."""
    steps = [part for part in draft.parts if part.kind in ("step", "answer")]
    work = desk.cast.book.separator.join(part.text for part in steps[:-1] or steps)
    answer, event = await desk.ask("verifier", steps[-1].node, 0, steps=work)
    if answer.truncated or not answer.text:
        event.verdict = "cut" if answer.truncated else "empty"
        return
    draft.parts.insert(-1, Part(kind="check", text=one_part(answer.text, desk.cast.book.separator)))


def one_part(text: str, separator: str) -> str:
    """What stands before the separator, which tells parts apart."""
    return text.strip().split(separator)[0].strip()


def words(text: str) -> str:
    """A text without its white space's form: what makes two steps the same."""
    return " ".join(text.split())


async def next_step(
    desk: Desk, parent: int, attempt: int, path: Sequence[Part], lines: Sequence[str] = (), tried: Sequence[str] = ()
) -> tuple[str, Event]:
    """The elaborator's step after a path, and its event, of no node yet; its verdict says where the step is empty or
    was cut. `lines`: of the plan. `tried`: what was wrong here.
    """
    separator = desk.cast.book.separator
    answer, event = await desk.ask(
        "elaborator",
        parent,
        attempt,
        plan=numbered(lines),
        steps="".join(part.text + separator for part in path),
        tried="\n".join(f"- {text}" for text in tried),
    )
    text = one_part(answer.text, separator)
    event.parent, event.node = parent, None
    if not text:
        event.verdict = "empty"
    elif answer.truncated and text == answer.text.strip():
        event.verdict = "cut"
    return text, event


def reflection(desk: Desk, why: str, place: Any, back_to: Part | None, reason: str = "") -> Part:
    """The words that take steps back, and say where the chain goes on: after a step, or from the question. `why`: a
    phrase's name. `place`: tells this reflection from others.
    """
    said = desk.phrase(why, place, reason)
    there = desk.phrase("restart", place) if back_to is None else desk.phrase("back", place, back_to.text)
    return Part(kind="reflection", text=f"{said} {there}", target=ROOT if back_to is None else back_to.node)


_LINE = re.compile(r"^\s*(?:\d+\s*[.):]|[-*])\s*(\S.*?)\s*$")


def read_plan(text: str) -> list[str]:
    """The lines of a plan: numbered or with a dash or a star in front. [] where there is none."""
    found = map(_LINE.match, text.splitlines())
    return [match[1] for match in found if match]


def numbered(lines: Sequence[str]) -> str:
    """As they are shown."""
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))


async def plan(
    desk: Desk, role: str, max_parts: int, retries: int, read: Callable[[str], list[str]] = read_plan
) -> list[str]:
    """The lines of the role's plan; asked again where they are none, too many or cut. Raises NoChain."""
    for attempt in range(retries + 1):
        answer, event = await desk.ask(role, ROOT, attempt)
        lines = read(answer.text)
        if lines and len(lines) <= max_parts and not answer.truncated:
            return lines
        event.verdict = "malformed"
    raise NoChain("malformed_plan")
