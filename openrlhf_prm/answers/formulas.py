r"""Two formulas compared by math-verify, with the places where it is wrong worked around:

- it reads the last number of a text that it cannot parse as the text's value: only whole LaTeX formulas are read here;
- it takes `10^{-20}` and `10^{-21}` for equal (differences below 1e-15 are cut to 0): numbers are compared by their
  ratio here;
- it lower-cases variables (`R` is `r`) and drops subscripts of numbers (`52_8` is 52): left as it is, and
  `comparison` looks at bases first.
"""

from functools import lru_cache

RELATIVE = 1e-12


def same_formula(reference: str, answer: str) -> bool:
    """Whether both are the same as mathematics. False where either is none. May take for ever: see `process`."""
    from math_verify import verify

    parsed = [_parsed(text) for text in (reference, answer)]
    if not all(parsed):
        return False
    numbers = _numbers(*(formulas[0] for formulas in parsed))
    if numbers is not None:
        return numbers
    return bool(verify(*parsed, timeout_seconds=None))


@lru_cache(maxsize=4096)
def _parsed(text: str) -> list:
    from math_verify import LatexExtractionConfig, parse

    return parse(
        f"${text}$",
        extraction_config=[LatexExtractionConfig()],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )


def _numbers(left, right) -> bool | None:
    """Verdict on two numbers; None where one is something else, or cannot be evaluated."""
    if not all(getattr(value, "is_number", False) and getattr(value, "is_finite", None) for value in (left, right)):
        return None
    try:
        # Numbers of sympy, not floats: 10^{400} is no infinity, which would be near everything.
        first, second, difference = (abs(value.evalf(30)).evalf(30) for value in (left, right, left - right))
        if not all(value.is_Number and value.is_finite for value in (first, second, difference)):
            return None
        scale = max(first, second)
        if scale == 0:
            return (left - right).equals(0) if left != right else True
        return bool(difference <= RELATIVE * scale)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None
