r"""How two answers are compared, once each is in its normal form (`normal_form`):

1. The same text is the same answer; words are compared without regard to case, a choice by its letter ("(B)", "B) 5").
2. Several answers: `\{...\}` and lists without brackets in any order, tuples and vectors in theirs, intervals with the
   kind of their ends, unions in any order. An inequality is the interval it describes. `a \pm b` is two answers.
3. `x = 5` is 5 for a single variable; other equations equal equations only.
4. Numbers are compared exactly, with their units where both have one: 50% is 50 and 0.5. A decimal of six or more
   digits equals what it is the rounding of.
5. Everything else is compared as mathematics by math-verify in a process of its own (`process`, `formulas`).

A text that is no number never becomes one, and what cannot be read as mathematics is compared as text.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from openrlhf_prm.answers.normal_form import Quantity, normal_form, quantity
from openrlhf_prm.answers.process import AnswerProcess
from openrlhf_prm.answers.values import differs, same_value, values

# A longer "answer" is a model gone astray.
LONGEST = 500
_FORMULAS = AnswerProcess()
_CHOICE = re.compile(r"[({]?\s*«?\(?\s*([A-Za-z])\s*\)?»?\s*[)}]?")
_LABELLED_CHOICE = re.compile(r"«?\(?\s*([A-J])\s*[).:]\s*\S")
_WORDS = re.compile(r"(?=.*[A-Za-z]{2})[A-Za-z]+(?:(?:[-']|[\s.]+)[A-Za-z]+)*\.?")
_VARIABLE = r"«?(?:\([A-Za-z](?:\s*,\s*[A-Za-z])*\)|[A-Za-z]+|\\[a-z]+|[a-zA-Z]\([a-zA-Z,]*\)|[A-Za-z]_\w)»?"
_ASSIGNED = re.compile(rf"({_VARIABLE})\s*(?:=|\\in(?![a-z]))\s*([^=]+)")
_CHAIN = re.compile(r"(.+?)\s*(\\le|<)\s*«?[A-Za-z]»?\s*(\\le|<)\s*(.+)")
_FALLING_CHAIN = re.compile(r"(.+?)\s*(\\ge|>)\s*«?[A-Za-z]»?\s*(\\ge|>)\s*(.+)")
_BOUND = re.compile(r"«?[A-Za-z]»?\s*(\\le|<|\\ge|>)\s*([^<>=]+)")
_BASE = re.compile(r"([0-9A-Za-z]+)_\{?(\d+)\}?")
_NUMBERS_IN_A_ROW = re.compile(r"[-+]?\d+(?:\.\d+)?(?:\s+\d+(?:\.\d+)?)+")
_MATRIX = re.compile(r"\\begin\{([pb]matrix)\}(.*)\\end\{\1\}", re.DOTALL)
_NO_NUMBER = re.compile(r"«[^«»\d]*[A-Za-z][^«»\d]*»|[-+]?\\infty")
_GREEK = frozenset("alpha beta gamma delta epsilon theta lambda mu nu rho sigma tau phi chi psi omega".split())
_NAMES = r"\b(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?\b|\b(?:log|ln|exp|sqrt|pi|inf|infty|infinity|mod|max|min|gcd|lcm)\b"
_OPEN, _CLOSE = "([{", ")]}"


def same_answer(reference: str, answer: str) -> bool:
    """Whether two texts are the same answer. Not symmetric in one thing only: a long text must repeat the reference."""
    if len(answer) > LONGEST or len(reference) > LONGEST:
        return answer.strip() == reference.strip()
    return _same(normal_form(reference), normal_form(answer))


@lru_cache(maxsize=16384)
def _same(reference: str, answer: str) -> bool:
    if not reference or not answer:
        return False
    if _compact(reference) == _compact(answer):
        return True
    names = [match.group(1) for text in (reference, answer) if (match := _ASSIGNED.fullmatch(text))]
    if len(names) == 2 and names[0].lower() != names[1].lower() and all(len(name) == 1 for name in names):
        return False  # x = 5 and y = 5
    left, right = _value(reference), _value(answer)
    if left is None or right is None:  # one of them is an equation of no single variable
        return left is right and _same_formula(reference, answer)
    if _compact(left) == _compact(right):
        return True
    verdict = _same_choice(left, right)
    if verdict is None:
        verdict = _same_quantity(quantity(left), quantity(right))
    if verdict is None:
        verdict = _same_collection(left, right)
    if verdict is None:
        verdict = _same_words(left, right)
    if verdict is None and (_variables(left) != _variables(right) or (r"\begin" in left) != (r"\begin" in right)):
        verdict = False
    if verdict is None and any(_NUMBERS_IN_A_ROW.fullmatch(text) for text in (left, right)):
        verdict = False  # "2 3" is neither 6 nor, as math-verify has it, 5
    if verdict is None:
        verdict = _same_cells(left, right)
    return _same_formula(left, right) if verdict is None else verdict


@lru_cache(maxsize=16384)
def _compact(text: str) -> str:
    """Without white space, but for that between two numbers or words."""
    return (
        re.sub(r"(?<![0-9A-Za-z])\s+|\s+(?![0-9A-Za-z])", "", text)
        .replace("«", "")
        .replace("»", "")
        .replace("\\{", "{")
        .replace("\\}", "}")
    )


@lru_cache(maxsize=16384)
def _value(text: str) -> str | None:
    """What is said of a single variable (`x = 5`, `x \\in S`), an inequality as an interval, else the text itself; None
    for any other equation.
    """
    if match := _ASSIGNED.fullmatch(text):
        return match.group(2).strip()
    if "=" in re.sub(r"\\ne(?:q)?|!=|\\le|\\ge|<=|>=", "", text):
        if _top_level(text, ","):
            return text  # "x = 1, x = 2"
        parts = [part.strip() for part in text.split("=")]
        if all(quantity(part) or not re.search(r"[A-Za-z]", re.sub(r"\\[a-z]+", "", part)) for part in parts):
            return parts[-1]  # "3 + 5 = 8"
        if len(parts) > 2 and re.fullmatch(r"[A-Za-z]", parts[0]):
            return parts[-1]  # "x = 3 + 5 = 8"
        return None
    if match := _CHAIN.fullmatch(text):
        low, first, second, high = match.groups()
        return f"{'[' if first != '<' else '('}{low},{high}{']' if second != '<' else ')'}"
    if match := _FALLING_CHAIN.fullmatch(text):
        high, first, second, low = match.groups()
        return f"{'[' if second != '>' else '('}{low},{high}{']' if first != '>' else ')'}"
    if match := _BOUND.fullmatch(text):
        sign, bound = match.groups()
        if sign in ("<", r"\le"):
            return rf"(-\infty,{bound.strip()}{')' if sign == '<' else ']'}"
        return rf"{'(' if sign == '>' else '['}{bound.strip()},\infty)"
    return text


@lru_cache(maxsize=16384)
def _variables(text: str) -> frozenset[str]:
    r"""The letters that stand for variables, in lower case as math-verify reads them; Greek ones by their name. An
    answer in other variables is taken for another answer, so `x - x + 2` is not 2: nothing else is as fast.
    """
    text = re.sub(r"«[^»]*»|\\(?:begin|end)\{\w+\}", " ", text)
    names = {name for name in re.findall(r"\\([a-zA-Z]+)", text) if name in _GREEK}
    letters = re.sub(rf"\\[a-zA-Z]+|{_NAMES}", " ", text)
    return frozenset(names | {letter for letter in re.findall(r"[a-z]", letters.lower()) if letter not in "ie"})


def _same_choice(left: str, right: str) -> bool | None:
    """Verdict on two choices by letter; None where one is none, or where both may be variables."""
    letters = [_letter(text) for text in (left, right)]
    if None in letters or not re.search(r"[«()]", left + right):
        return None
    return letters[0].lower() == letters[1].lower()


@lru_cache(maxsize=16384)
def _letter(text: str) -> str | None:
    match = _CHOICE.fullmatch(text) or _LABELLED_CHOICE.match(text)
    return match.group(1) if match else None


def _same_quantity(left: Quantity | None, right: Quantity | None) -> bool | None:
    if left is None or right is None:
        return None
    if left.unit and right.unit and left.unit != right.unit:
        return False
    if _same_number(left, right):
        return True
    if left.percent != right.percent:
        hundredth, other = (left, right) if left.percent else (right, left)
        return hundredth.value == 100 * other.value
    return False


def _same_number(left: Quantity, right: Quantity) -> bool:
    if left.value == right.value:
        return True
    for rounded, exact in ((left, right), (right, left)):
        digits = rounded.decimals
        if digits is not None and digits >= 6 and (exact.decimals is None or exact.decimals > digits):
            if abs(rounded.value - exact.value) * 2 * 10**digits <= 1:
                return True
    return False


def _same_words(left: str, right: str) -> bool | None:
    """Verdict on two texts of words; None where one may be mathematics."""
    words = [text.replace("«", " ").replace("»", " ").strip() for text in (left, right)]
    quoted = ["«" in text for text in (left, right)]
    if any(_BASE.fullmatch(word) for word in words):
        bases = [_BASE.fullmatch(word) for word in words]
        if all(bases):
            return bases[0].groups() == bases[1].groups()
        (number,) = [base.group(1) for base in bases if base]
        return number == next(word for word, base in zip(words, bases, strict=True) if not base)
    plain = [
        bool(_WORDS.fullmatch(word)) and (is_text or len(word) > 2) for word, is_text in zip(words, quoted, strict=True)
    ]
    if not any(plain):
        return None
    first, second = (re.sub(r"[^a-z0-9]+", " ", word.lower()).strip() for word in words)
    return first == second


def _same_collection(left: str, right: str) -> bool | None:
    """Verdict where either side has several parts; None where both are single."""
    unions = [_split(text, r"\cup") for text in (left, right)]
    if any(len(parts) > 1 for parts in unions):
        return _same_in_any_order(*unions)
    (kind, parts), (other_kind, other_parts) = _collection(left), _collection(right)
    if kind is None and other_kind is None:
        return None
    if kind is None or other_kind is None:  # {5} and 5
        return (
            len(parts) == len(other_parts) == 1
            and {kind, other_kind} <= {None, "any", "()"}
            and _same(parts[0], other_parts[0])
        )
    if len(parts) != len(other_parts):
        return False
    if "any" in (kind, other_kind) and {kind, other_kind} <= {"any"}:
        return _same_in_any_order(parts, other_parts)
    if "any" in (kind, other_kind):  # 1, 2 for (1, 2)
        return (
            {kind, other_kind} == {"any", "()"}
            and not {"{"} & {left[:1], right[:1], left[1:2], right[1:2]}
            and all(map(_same, parts, other_parts))
        )
    if len(parts) == 2 and kind != other_kind:
        return False
    return all(map(_same, parts, other_parts))


@lru_cache(maxsize=16384)
def _collection(text: str) -> tuple[str | None, list[str]]:
    """Kind and parts: "any" for sets and bare lists, brackets for tuples and intervals; None for a single answer."""
    text = text.strip()
    inner = re.fullmatch(r"\\\{(.*)\\\}", text, re.DOTALL) or re.fullmatch(r"\{(.*)\}", text, re.DOTALL)
    if inner and _balanced(inner.group(1)) and not re.search(r"\\mid|:|\|", inner.group(1)):
        return "any", _expanded(_top_level(inner.group(1), ",") or [inner.group(1)])
    if text[:1] in "([" and text[-1:] in ")]" and _balanced(text[1:-1]):
        parts = _top_level(text[1:-1], ",")
        return (text[0] + text[-1], parts) if parts else (None, [text])
    parts = _expanded(_top_level(re.sub(r"\s(?:and|or)\s", ",", re.sub(r"«(?:and|or)»", ",", text)), ",") or [text])
    parts = [part for part in parts if part]
    return ("any", parts) if len(parts) > 1 else (None, [text])


def _expanded(parts: Sequence[str]) -> list[str]:
    r"""`a \pm b` as two parts."""
    found: list[str] = []
    for part in parts:
        if part.count(r"\pm") == 1:
            left, right = part.split(r"\pm")
            found += [f"{left}+{right}".strip("+ ") if not left.strip() else f"{left}+{right}", f"{left}-{right}"]
        else:
            found.append(part)
    return [part.strip() for part in found]


def _same_in_any_order(left: Sequence[str], right: Sequence[str]) -> bool:
    rest = list(right)
    for part in left:
        partner = next((other for other in rest if _same(part.strip(), other.strip())), None)
        if partner is None:
            return False
        rest.remove(partner)
    return not rest


def _split(text: str, separator: str) -> list[str]:
    return [part.strip() for part in re.split(re.escape(separator) + r"(?![a-zA-Z])", text)]


def _top_level(text: str, separator: str) -> list[str]:
    """The parts of a text between separators outside brackets; [] where there is none. Thousands are no parts."""
    if quantity(text) is not None:
        return []
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
        elif character == separator and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    return [*parts, text[start:].strip()] if parts else []


def _balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth < 0:
            return False
    return depth == 0


def _same_cells(left: str, right: str) -> bool | None:
    """Verdict on two matrices of one kind, cell by cell; None where they are none, or a cell does not settle it."""
    matrices = [_MATRIX.fullmatch(text) for text in (left, right)]
    if None in matrices or matrices[0].group(1) != matrices[1].group(1):
        return None
    rows = [[row.split("&") for row in match.group(2).split(r"\\")] for match in matrices]
    if [len(row) for row in rows[0]] != [len(row) for row in rows[1]]:
        return None
    cells = zip(*([cell.strip() for row in part for cell in row] for part in rows), strict=True)
    verdicts = [same_value(a, b) for a, b in cells]
    return False if False in verdicts else None if None in verdicts else True


def _same_formula(reference: str, answer: str) -> bool:
    verdict = same_value(reference, answer)
    if verdict is None and (_is_another_thing(reference, answer) or _is_another_thing(answer, reference)):
        verdict = False
    if verdict is not None:
        return verdict
    return _FORMULAS.same(*(text.replace("«", r"\text{").replace("»", "}") for text in (reference, answer)))


def _is_another_thing(text: str, constant: str) -> bool:
    """Whether the second is a constant, and the first words, infinity, or a number with a unit that is another one."""
    value = values(constant)
    if value is None or not value.constant or values(text) is not None:
        return False
    if _NO_NUMBER.fullmatch(text):
        return True
    with_unit = quantity(text)
    return with_unit is not None and all(differs(value, number) for number in (with_unit.value, with_unit.value / 100))
