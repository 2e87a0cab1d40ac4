r"""How an answer is normalised: the same value written in two ways becomes the same text as far as writing goes.

`normal_form` takes off delimiters, spacing and typography; `quantity` splits a number from its unit. Neither changes a
value: a text that is no number never becomes one.
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\[", r"\]"), (r"\(", r"\)"), ("**", "**"), ("`", "`"))
_SYMBOLS = {
    "\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{EM DASH}": "-", "\N{MULTIPLICATION SIGN}": r"\times ",
    "\N{DIVISION SIGN}": r"\div ", "\N{MIDDLE DOT}": r"\cdot ", "\N{GREEK SMALL LETTER PI}": r"\pi ",
    "\N{INFINITY}": r"\infty ", "\N{LESS-THAN OR EQUAL TO}": r"\le ", "\N{GREATER-THAN OR EQUAL TO}": r"\ge ",
    "\N{NOT EQUAL TO}": r"\ne ", "\N{PLUS-MINUS SIGN}": r"\pm ", "\N{UNION}": r"\cup ", "\N{ELEMENT OF}": r"\in ",
    "\N{DEGREE SIGN}": r"^\circ ", "\N{SQUARE ROOT}": r"\sqrt ", "\N{GREEK SMALL LETTER THETA}": r"\theta ",
    "\N{FRACTION SLASH}": "/", "\N{SUPERSCRIPT TWO}": "^2", "\N{SUPERSCRIPT THREE}": "^3",
}  # fmt: skip
_TEXT = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mathsf|operatorname|hbox)\s*\{")
_NOTHING = re.compile(
    r"(?<!\\)\\ |~"
    r"|\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits|nolimits|[!,;:>]|quad|qquad|hspace\{[^}]*\})(?![a-zA-Z])"
)
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_PLAIN = re.compile(rf"[-+]?(?:{_NUMBER})")
_RATIO = re.compile(
    rf"([-+]?)\s*(?:(\d+)\s+|(\d+)(?=\\))?(?:\\frac\{{({_NUMBER})\}}\{{({_NUMBER})\}}|({_NUMBER})/({_NUMBER}))"
)
_SCIENTIFIC = re.compile(r"([-+]?(?:\d+(?:\.\d*)?|\.\d+))[eE]([-+]?\d{1,3})")
_QUANTITY = re.compile(
    rf"([-+]?)\s*(\\?\$|[£€])?\s*([-+]?(?:{_NUMBER})|[-+]?\\frac\{{\d+\}}\{{\d+\}}|[-+]?\d+/\d+)\s*(.*)", re.DOTALL
)
_WORDS = re.compile(r"(?:[«»A-Za-z.'/^{}\d\s-]|\\%|%|\^\\circ|\^\{\\circ\})*")
_FUNCTIONS = frozenset("sin cos tan cot sec csc log ln exp sqrt pi inf infinity mod and or to over times".split())
_UNITS = {
    "dollar": "dollar", "$": "dollar", "usd": "dollar", "cent": "cent", "euro": "euro", "pound": "pound",
    "degree": "degree", "radian": "radian", "percent": "percent", "%": "percent",
    "second": "second", "sec": "second", "minute": "minute", "min": "minute", "hour": "hour", "hr": "hour",
    "day": "day", "week": "week", "month": "month", "year": "year",
    "mm": "millimeter", "millimeter": "millimeter", "cm": "centimeter", "centimeter": "centimeter",
    "m": "meter", "meter": "meter", "metre": "meter", "km": "kilometer", "kilometer": "kilometer",
    "inch": "inch", "inche": "inch", "in": "inch", "foot": "foot", "feet": "foot", "ft": "foot", "yard": "yard",
    "mile": "mile", "mi": "mile", "gram": "gram", "g": "gram", "kg": "kilogram", "kilogram": "kilogram",
    "liter": "liter", "litre": "liter", "l": "liter", "ml": "milliliter", "milliliter": "milliliter",
    "ounce": "ounce", "oz": "ounce", "lb": "pound", "gallon": "gallon",
}  # fmt: skip
"""Word of a unit -> its name. Two quantities whose units both stand here and differ are not equal."""


@dataclass(frozen=True)
class Quantity:
    """A number with the unit that was written with it, as `_UNITS` names it, or ""; `percent` where a % stood there."""

    value: Fraction
    unit: str = ""
    decimals: int | None = None  # digits after the point, where the number was written with one

    @property
    def percent(self) -> bool:
        return self.unit == "percent"


@lru_cache(maxsize=16384)
def normal_form(text: str) -> str:
    r"""The text without delimiters around it, spacing commands, `\left` and the like; one way to write fractions,
    roots, signs and thousands. `\text{...}` becomes `«...»`, so that words are told from variables.
    """
    text = text.strip()
    for symbol, command in _SYMBOLS.items():
        text = text.replace(symbol, command)
    text = unicodedata.normalize("NFKC", text).replace("\N{FRACTION SLASH}", "/")
    text = _unwrapped(text)
    text = re.sub(r",\s*\\!\s*|\{,\}", ",", text)
    text = re.sub(r"(?<=\d),\s+(?=\d{3}(?:,\s+\d{3})*$)", ",", text) if r"\!" in text else text
    text = _NOTHING.sub(" ", text)
    text = _quoted(text)
    text = re.sub(r"\\[dtc]frac", r"\\frac", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{", text)
    text = re.sub(r"(\\frac\s*\{[^{}]*\})\s*(\d|[a-zA-Z])", r"\1{\2}", text)
    text = re.sub(r"\\frac\s*\{\s*([^{}]*?)\s*\}\s*\{\s*([^{}]*?)\s*\}", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\sqrt\s*(\d+|[a-zA-Z])", r"\\sqrt{\1}", text)
    text = re.sub(r"\\(leq|le|leqslant)(?![a-zA-Z])", r"\\le", text)
    text = re.sub(r"\\(geq|ge|geqslant)(?![a-zA-Z])", r"\\ge", text)
    text = re.sub(r"\\lt(?![a-zA-Z])", "<", re.sub(r"\\gt(?![a-zA-Z])", ">", text))
    text = re.sub(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree(?![a-zA-Z])", r"^\\circ ", text)
    text = re.sub(r"_\{(\w)\}", r"_\1", text)
    text = re.sub(r"«([^A-Za-z«»]*)»", r"\1", text)  # a number set as text
    return re.sub(r"\s+", " ", text).strip().rstrip(".,;:").strip() if text.strip(".,;: ") else ""


def _unwrapped(text: str) -> str:
    while True:
        for opening, closing in _DELIMITERS:
            inner = text[len(opening) : -len(closing)]
            closed = len(text) > len(opening) + len(closing) - 1 and text.endswith(closing) and opening not in inner
            if text.startswith(opening) and closed and inner.strip():
                text = inner.strip()
                break
        else:
            return text.rstrip(".").strip() if text.count(".") == 1 or not text[:1].isdigit() else text


def _quoted(text: str) -> str:
    r"""`\text{...}` as `«...»`."""
    while match := _TEXT.search(text):
        depth, position = 1, match.end()
        while position < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            position += 1
        inner = text[match.end() : position - 1 if not depth else position]
        text = f"{text[: match.start()]} «{inner.strip()}»{text[position:]}"
    return text


@lru_cache(maxsize=16384)
def quantity(text: str) -> Quantity | None:
    """A normal form that is one number, with or without a unit; None for anything else, a formula above all."""
    match = _QUANTITY.fullmatch(text.replace("«", " «"))
    if match is None:
        value = number(text)
        return None if value is None else Quantity(value)
    sign, currency, digits, rest = match.groups()
    direct = number(text)
    if direct is not None:
        return Quantity(direct, decimals=_decimals(text))
    value = number(digits)
    if value is None:
        return None
    unit = _unit(rest, attached=not text[: len(text) - len(rest)].endswith(" "))
    if unit is None:
        return None
    if sign == "-":
        value = -value
    return Quantity(value, unit or ("dollar" if currency and "$" in currency else ""), _decimals(digits))


def _unit(rest: str, attached: bool) -> str | None:
    """The unit that `rest` names, "" for words that are no unit known; None where it is no unit but a formula."""
    rest = rest.strip()
    if not rest:
        return ""
    if rest in (r"\%", "%"):
        return "percent"
    if rest in (r"^\circ", r"^\circ «F»", r"^\circ «C»"):
        return "degree"
    if not _WORDS.fullmatch(rest):
        return None
    words = re.findall(r"[A-Za-z]+|%", rest)
    bare = re.findall(r"[A-Za-z]+", re.sub(r"«[^»]*»", " ", rest))
    plain = [word for word in bare if (len(word) < 2 and word not in _UNITS) or word.lower() in _FUNCTIONS]
    if (
        not words
        or plain
        or (attached and bare and len(bare[0]) < 2)
        or re.search(r"\d", re.sub(r"\^\{?\d\}?", "", rest))
    ):
        return None
    first = next((word for word in words if word.lower() not in ("square", "cubic")), words[0]).lower()
    singular = first[:-1] if first.endswith("s") and len(first) > 2 else first
    return _UNITS.get(first, _UNITS.get(singular, ""))


def number(text: str) -> Fraction | None:
    """The value of a plain number, a ratio of two, or a mixed number; None for anything else."""
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return Fraction(text.replace(",", "").rstrip("."))
    if match := _RATIO.fullmatch(text):
        sign, spaced, joined, over, under, left, right = match.groups()
        whole = spaced or joined
        top, bottom = (Fraction((part).replace(",", "")) for part in ((over, under) if over else (left, right)))
        if bottom == 0 or (whole and not (top < bottom)):
            return None
        value = top / bottom + (int(whole) if whole else 0)
        return -value if sign == "-" else value
    if match := _SCIENTIFIC.fullmatch(text):
        return Fraction(match.group(1)) * Fraction(10) ** int(match.group(2))
    return None


def _decimals(text: str) -> int | None:
    _, point, digits = text.strip().partition(".")
    return len(digits) if point and digits.isdigit() else None
