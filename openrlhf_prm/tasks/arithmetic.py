"""Chains of additions with *habits*: a task whose steps can be checked exactly.

A question is ``Q: 12+35+48=?`` and a response works it off one addition a line::

    12+35=47                       quick step: adds digit by digit and forgets the carry
    47+48: 7+8=15, 4+4+1=9 > 95    careful step: writes the carry down, longer, right
    so 95                          filler step: repeats the running total, useless
    Answer: 95

Long chains name their operands in order, ``Q: 12+a35+b48=?`` and ``47+b48=95``. Without names a tiny model finds its
place by counting lines, which is the first thing that reinforcement learning wears down, and a chain of eight then
fails for a reason that no habit explains.

A policy trained on demonstrations that mix the habits does each step in either way. Reinforcement learning cannot
teach arithmetic to a model this small, but it can teach it which habit to choose - provided it learns *which step*
was to blame.
"""

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SPLITS = ("train", "tune", "test")
NAMES = "abcdefghijkl"
"""Names of the operands after the first; their number is the longest chain."""

_QUESTION = re.compile(r"Q: (\d+(?:\+[a-z]?\d+)+)=\?")
_QUICK = re.compile(r"(\d+)\+([a-z]?\d+)=(\d+)")
_CAREFUL = re.compile(r"(\d+)\+([a-z]?\d+): (\d)\+(\d)=(\d+), ([\d+]+)=(\d+) > (\d+)")
_FILLER = re.compile(r"so (\d+)")
_ANSWER = re.compile(r"Answer: (\d+)")


@dataclass(frozen=True)
class HabitMix:
    """How often demonstrations use each habit, and how often an addition carries.

    ``quick``: chance that a step is quick (else careful), and ``quick_per_unit`` how much it grows with the units digit
    of the number that is added, so that the habit is stronger in some situations than in others; ``filler``: how many
    fillers follow a step on average: one with this chance up to 1, none to twice as many above (rounded to halves);
    ``carry``: chance that an addition has a carry, which is what makes a quick step wrong; ``additions``: the numbers
    of additions, drawn uniformly; ``named``: whether operands after the first carry the letters ``NAMES``, which limits
    a chain to as many additions.
    """

    quick: float = 0.6
    quick_per_unit: float = 0.0
    filler: float = 0.12
    carry: float = 0.22
    additions: tuple[int, ...] = (3, 4, 5)
    named: bool = False


def split_of(question: str) -> str:
    """The split a question belongs to, by the hash of its text: 80% train, 10% tune, 10% test. Disjoint by
    construction.
    """
    bucket = hashlib.sha256(question.encode()).digest()[0] % 10
    return "test" if bucket == 0 else "tune" if bucket == 1 else "train"


def draw_operands(rng: random.Random, mix: HabitMix) -> list[int]:
    """Operands of one question: numbers 10-39 whose units carry with chance ``mix.carry`` at each addition."""
    operands = [rng.randint(10, 39)]
    total = operands[0]
    for _ in range(rng.choice(mix.additions)):
        units = total % 10
        carries = rng.random() < mix.carry and units > 0
        unit = rng.randint(10 - units, 9) if carries else rng.randint(0, 9 - units)
        operand = rng.randint(1, 3) * 10 + unit
        operands.append(operand)
        total += operand
    return operands


def questions(split: str, count: int, seed: int, mix: HabitMix | None = None) -> Iterator[tuple[str, str]]:
    """``count`` distinct (question, answer) pairs of a split, the same ones for the same seed.

    Raises ValueError for a split that is not one of ``SPLITS``.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    rng = random.Random(f"{split}-{seed}")
    mix = mix or HabitMix()
    seen: set[str] = set()
    while len(seen) < count:
        operands = draw_operands(rng, mix)
        question = write_question(operands, mix.named)
        if split_of(question) == split and question not in seen:
            seen.add(question)
            yield question, str(sum(operands))


def write_question(operands: Sequence[int], named: bool) -> str:
    """The text of a question; ends with a newline."""
    first, *rest = operands
    return f"Q: {'+'.join([str(first), *map(''.join, zip(_names(named, rest), map(str, rest), strict=True))])}=?\n"


def _names(named: bool, operands: Sequence[int]) -> Sequence[str]:
    if len(operands) > len(NAMES) and named:
        raise ValueError(f"a chain with names has at most {len(NAMES)} additions, got {len(operands)}")
    return NAMES[: len(operands)] if named else [""] * len(operands)


def quick_step(a: int, b: int, name: str = "") -> tuple[str, int]:
    """The quick habit: units and tens are added without the carry, so the result is right only where there is none."""
    result = (a // 10 + b // 10) * 10 + (a + b) % 10 if a % 10 + b % 10 > 9 else a + b
    return f"{a}+{name}{b}={result}", result


def careful_step(a: int, b: int, name: str = "") -> tuple[str, int]:
    """The careful habit: the sum of the units, the sum of the tens with the carry, the result."""
    carry = (a % 10 + b % 10) // 10
    tens = f"{a // 10}+{b // 10}" + ("+1" if carry else "")
    return f"{a}+{name}{b}: {a % 10}+{b % 10}={a % 10 + b % 10}, {tens}={a // 10 + b // 10 + carry} > {a + b}", a + b


def demonstration(question: str, rng: random.Random, mix: HabitMix | None = None) -> str:
    """A response as a policy with these habits writes it, errors of the quick habit included; ends with a newline."""
    mix = mix or HabitMix()
    total, terms = _parse(question)
    lines = []
    for name, operand in terms:
        quick = mix.quick + mix.quick_per_unit * (operand % 10)
        step = quick_step if rng.random() < quick else careful_step
        line, total = step(total, operand, name)
        lines.append(line)
        # Up to 1 one draw of `random`, so that the policies made with it can be made again.
        fillers = rng.random() < mix.filler if mix.filler <= 1 else rng.randint(0, round(2 * mix.filler))
        lines += [f"so {total}"] * fillers
    return "\n".join([*lines, f"Answer: {total}"]) + "\n"


def operands_of(question: str) -> list[int]:
    """The operands of a question. Raises ValueError where the text is not a question of this task."""
    first, terms = _parse(question)
    return [first, *(operand for _, operand in terms)]


def _parse(question: str) -> tuple[int, list[tuple[str, int]]]:
    """The first operand, and name (empty without names) and operand of each addition."""
    match = _QUESTION.fullmatch(question.strip())
    if match is None:
        raise ValueError(f"not an arithmetic question: {question!r}; expected 'Q: 12+35=?' or 'Q: 12+a35=?'")
    first, *rest = match.group(1).split("+")
    terms = [(term.rstrip("0123456789"), int(term.lstrip(NAMES))) for term in rest]
    names = "".join(name for name, _ in terms)
    if names not in ("", NAMES[: len(rest)]):
        raise ValueError(f"operands of {question!r} must be named {NAMES} in order, or not at all")
    return int(first), terms


def check_steps(question: str, steps: Sequence[str]) -> list[bool]:
    """For each step whether the solution is still on the right path after it: the exact counterpart of a step label.

    A step is right when it adds the next operand to the true running total and gets the true result (a careful step
    must also have written true sums), a filler when it repeats that total, the answer when all operands are used and
    it is the sum. From the first error on every step counts as wrong, because no later step of this task repairs one.
    A step of any other form is wrong. No steps: an empty list.
    """
    total, left = _parse(question)
    on_path, labels = True, []
    for step in steps:
        step = step.strip()
        if _QUICK.fullmatch(step) or _CAREFUL.fullmatch(step):
            name, operand = left[0] if left else ("", 0)
            result = total + operand
            right = step in (f"{total}+{name}{operand}={result}", careful_step(total, operand, name)[0]) and bool(left)
            if right:
                total = result
                left.pop(0)
        elif match := _FILLER.fullmatch(step):
            right = int(match.group(1)) == total
        elif match := _ANSWER.fullmatch(step):
            right = not left and int(match.group(1)) == total
        else:
            right = False
        on_path = on_path and right
        labels.append(on_path)
    return labels


def habit_of(step: str) -> str:
    """The habit a step shows: quick, careful, filler, answer, or other."""
    forms = {"quick": _QUICK, "careful": _CAREFUL, "filler": _FILLER, "answer": _ANSWER}
    return next((name for name, form in forms.items() if form.fullmatch(step.strip())), "other")
