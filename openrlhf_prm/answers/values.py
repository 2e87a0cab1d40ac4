r"""Formulas compared by their values, without a computer algebra system: microseconds, where math-verify's parser takes
tens of milliseconds.

Only what can be read in one way is read: sums, products, quotients and powers of numbers, variables, `\pi` and e,
with `\frac`, `\sqrt`, `\binom`, `\sin` and the like, and brackets. Everything else is left to math-verify
(`formulas`): units, `1/2x`, `f(x)`, explosive powers. A formula is evaluated to `DIGITS` digits at `POINTS`, each
variable at values of its own (a constant is the same at all):

- two constants are equal if they differ by less than `formulas.RELATIVE` of the larger, clearly or not at all;
- two formulas whose values differ at a point are different;
- two quotients of polynomials with rational coefficients that agree at all points are the same: they agree at three
  points of 15 random digits each by no other chance. Roots of variables may agree there and differ elsewhere; they are
  left to math-verify.

`i` is a variable here, as in math-verify's reading of `2+3i`.
"""

import math
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import mpmath

from openrlhf_prm.answers.normal_form import number

DIGITS = 40
EQUAL, DIFFERENT = 1e-14, 1e-8
"""Relative differences below which values are equal and above which they are not."""
LARGEST = 1e100
HIGHEST_POWER = 200

_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?|\.\d+)|\\([a-z]+)(?![a-zA-Z])|([a-z])|([-+*/^(){}\[\]_]))")
_LETTERS = frozenset("abeiknpqruvwxyz")
"""Letters that stand for nothing but variables, e and i: math-verify takes a final m, s or t for a unit."""
_UNITS = re.compile(r"(?:ab|by|yr|way)\s*$")
_DEGREES = re.compile(r"(?<=\d)\s*\^\s*\\circ\s*$")
_CONTEXT = mpmath.mp.clone()
_CONTEXT.dps = DIGITS
_LOCK = threading.Lock()
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(_CONTEXT, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "ln")},
    "log": _CONTEXT.ln,  # with a base only
}


def _points() -> list[dict[str, Any]]:
    rng = random.Random(0)
    signs = (1, 1, -1)
    return [
        {name: _CONTEXT.mpf(sign * rng.randrange(2 * 10**14, 2 * 10**15)) / 10**15 for name in sorted(_LETTERS)}
        for sign in signs
    ]


POINTS = _points()


class _Unread(Exception):
    """The text is no formula that can be read in one way only."""


@dataclass(frozen=True)
class Values:
    """What a formula is worth at each of `POINTS`; `constant`: it has no variable; `rational`: it is a quotient of
    polynomials with rational coefficients.
    """

    at: tuple[Any, ...]
    constant: bool
    rational: bool


def same_value(reference: str, answer: str) -> bool | None:
    """Verdict on two formulas; None where either cannot be read, or where values do not settle it."""
    left, right = values(reference), values(answer)
    if left is None or right is None:
        return None
    differences = [_difference(a, b) for a, b in zip(left.at, right.at, strict=True)]
    if any(difference is None for difference in differences):
        return None
    if any(difference > DIFFERENT for difference in differences):
        return False
    if all(difference < EQUAL for difference in differences):
        return True if (left.constant and right.constant) or (left.rational and right.rational) else None
    return None


def differs(constant: Values, number: Fraction) -> bool:
    """Whether a constant is clearly another number."""
    difference = _difference(constant.at[0], _CONTEXT.mpc(number.numerator) / number.denominator)
    return difference is not None and difference > DIFFERENT


def _difference(left: Any, right: Any) -> float | None:
    """Relative to the larger one; None where both are too small to tell."""
    larger = max(abs(left), abs(right))
    return None if larger < 1e-8 else float(abs(left - right) / larger)


@lru_cache(maxsize=16384)
def values(text: str) -> Values | None:
    """The values of a formula in normal form; None where it cannot be read."""
    plain = number(text)
    if plain is not None:
        value = _CONTEXT.mpc(plain.numerator) / plain.denominator
        return Values((value,) * len(POINTS), constant=True, rational=True)
    try:
        formula = _Reader(_DEGREES.sub("", text)).formula()
        with _LOCK:  # mpmath's functions change the context's precision and set it back
            at = tuple(_CONTEXT.mpc(formula.value(point)) for point in POINTS)
    except (_Unread, ZeroDivisionError, OverflowError, ValueError, RecursionError):
        return None
    if any(abs(value) > LARGEST for value in at):
        return None
    return Values(at, not formula.variables, formula.rational)


@dataclass(frozen=True)
class _Formula:
    """A function of a point. `whole`: its value where it is an integer written in digits."""

    value: Callable[[dict[str, Any]], Any]
    variables: bool = False
    rational: bool = True
    whole: int | None = None


class _Reader:
    """Recursive descent over the tokens of a formula. Raises _Unread."""

    def __init__(self, text: str):
        if _UNITS.search(text):
            raise _Unread
        self.tokens: list[tuple[str, str]] = []
        position, text = 0, text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None or (match.group(3) and match.group(3) not in _LETTERS):
                raise _Unread
            kind = ("number", "command", "letter", "sign")[match.lastindex - 1]
            self.tokens.append((kind, match.group(match.lastindex)))
            position = match.end()
        self.place = 0

    def formula(self) -> _Formula:
        """All of the text."""
        formula = self.sum()
        if self.place < len(self.tokens):
            raise _Unread
        return formula

    def next(self) -> tuple[str, str]:
        return self.tokens[self.place] if self.place < len(self.tokens) else ("", "")

    def take(self, *signs: str) -> str:
        """The next token if it is one of these, else ""."""
        kind, text = self.next()
        if kind in ("sign", "command") and text in signs:
            self.place += 1
            return text
        return ""

    def need(self, sign: str) -> None:
        if not self.take(sign):
            raise _Unread

    def sum(self) -> _Formula:
        sign = self.take("+", "-")
        total = self.product()
        if sign == "-":
            whole = None if total.whole is None else -total.whole
            total = replace(_combined(lambda a: -a, total), whole=whole)
        while sign := self.take("+", "-"):
            term = self.product()
            total = _combined((lambda a, b: a + b) if sign == "+" else (lambda a, b: a - b), total, term)
        return total

    def product(self) -> _Formula:
        total = self.power()
        while True:
            if self.take("*", "cdot", "times"):
                total = _combined(lambda a, b: a * b, total, self.power())
            elif self.take("/", "div"):
                total = _combined(lambda a, b: a / b, total, self.power())
                if self.starts_factor():
                    raise _Unread  # 1/2x
            elif self.starts_factor():
                total = _combined(lambda a, b: a * b, total, self.power())
            else:
                return total

    def starts_factor(self) -> bool:
        """Whether a factor follows without a sign. What may be read in two ways raises _Unread: a number behind
        another factor, a mixed number, a bracket behind a letter, which may be the argument of a function.
        """
        kind, text = self.next()
        before_kind, before = self.tokens[self.place - 1]
        if kind == "number" or (text == "frac" and before_kind == "number"):
            raise _Unread
        if text == "(" and (before_kind == "letter" or before == "pi"):
            raise _Unread
        return kind == "letter" or text in ("frac", "sqrt", "pi", "(", "binom", *_FUNCTIONS)

    def power(self) -> _Formula:
        base = self.atom()
        if not self.take("^"):
            return base
        exponent = self.single()  # none for 2^10
        if self.next()[1] == "^":
            raise _Unread
        whole = exponent.whole is not None

        def value(point):
            over, under = exponent.value(point), base.value(point)
            if abs(over) > HIGHEST_POWER or abs(under) > LARGEST or (under == 0 and _CONTEXT.re(over) <= 0):
                raise OverflowError
            return under**exponent.whole if whole else _CONTEXT.power(under, over)

        rational = base.rational and whole
        return _Formula(value, base.variables or exponent.variables, rational)

    def atom(self) -> _Formula:
        kind, text = self.next()
        self.place += 1
        if kind == "number":
            number = _CONTEXT.mpf(text)
            whole = int(text) if text.isdigit() else None
            return _Formula(lambda point: number, rational=whole is not None, whole=whole)
        if kind == "letter":
            if text == "e":
                return _Formula(lambda point: _CONTEXT.e, rational=False)
            return _Formula(lambda point: point[text], variables=True)
        if text == "pi":
            return _Formula(lambda point: +_CONTEXT.pi, rational=False)
        if text == "frac":
            return _combined(lambda a, b: a / b, self.group(), self.group())
        if text == "sqrt":
            return self.root()
        if text in _FUNCTIONS:
            return self.function(text)
        if text == "binom":
            whole = [self.group().whole for _ in range(2)]
            if not all(part is not None and 0 <= part <= HIGHEST_POWER for part in whole):
                raise _Unread
            number = _CONTEXT.mpf(math.comb(*whole))
            return _Formula(lambda point: number)
        if text in ("(", "{"):
            self.place -= 1
            return self.group(text)
        raise _Unread

    def function(self, name: str) -> _Formula:
        r"""`\sin(x)`, `\sin 2x`, `\log_2 3`. Without a bracket the argument is one factor, or a number and one factor,
        and no other may follow.
        """
        base = None
        if name == "log":
            self.need("_")
            base = self.single()
        elif self.next()[1] in ("^", "_"):
            raise _Unread
        if self.next()[1] in ("(", "{"):
            argument = self.group(self.next()[1])
        else:
            if self.next()[1] in _FUNCTIONS:
                raise _Unread
            number = self.next()[0] == "number"
            argument = self.power()
            if number and (self.next()[0] == "letter" or self.next()[1] == "pi"):
                argument = _combined(lambda a, b: a * b, argument, self.power())
            if self.next()[1] not in ("", "+", "-", ")", "}"):
                raise _Unread
        if base is not None:
            result = _combined(lambda a, b: _CONTEXT.ln(a) / _CONTEXT.ln(b), argument, base)
        else:
            result = _combined(_FUNCTIONS[name], argument)
        return replace(result, rational=False)

    def single(self) -> _Formula:
        """A group in braces, or one digit or letter."""
        kind, text = self.next()
        if text != "{" and not (kind == "letter" or (kind == "number" and len(text) == 1)):
            raise _Unread
        return self.group() if text == "{" else self.atom()

    def root(self) -> _Formula:
        degree = None
        if self.take("["):
            kind, text = self.next()
            if kind != "number" or not text.isdigit() or not 2 <= int(text) <= 9:
                raise _Unread
            degree = int(text)
            self.place += 1
            self.need("]")
        inner = self.group()
        exponent = _CONTEXT.mpf(1) / (degree or 2)
        root = _combined(lambda a: _CONTEXT.sqrt(a) if degree is None else _CONTEXT.power(a, exponent), inner)
        return _Formula(root.value, root.variables, rational=False)

    def group(self, opening: str = "{") -> _Formula:
        self.need(opening)
        inner = self.sum()
        self.need({"{": "}", "(": ")"}[opening])
        return inner


def _combined(function: Callable, *parts: _Formula) -> _Formula:
    return _Formula(
        lambda point: function(*(part.value(point) for part in parts)),
        any(part.variables for part in parts),
        all(part.rational for part in parts),
    )
