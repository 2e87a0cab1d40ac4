r"""Formulas compared by values: what is read, what is not, and that verdicts are math-verify's."""

import random

import pytest
from answer_cases import cases

from openrlhf_prm.answers.comparison import _value
from openrlhf_prm.answers.formulas import same_formula
from openrlhf_prm.answers.normal_form import normal_form
from openrlhf_prm.answers.values import same_value, values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-2^2", -4),
        ("2^{-1}", 0.5),
        (r"\frac{1}{2}-\frac{1}{3}", 1 / 6),
        (r"2\sqrt{9}", 6),
        (r"\sqrt[3]{8}", 2),
        (r"2\cdot 3/4", 1.5),
        ("2(3)(4)", 24),
        (r"\frac{\pi}{2}", 1.5707963267948966),
        ("e^{2}", 7.38905609893065),
        (r"\log_{2} 8", 3),
        (r"\log_9 3", 0.5),
        (r"\sin(0)+\cos 0", 1),
        (r"\cos 2\pi", 1),
        (r"\binom{5}{2}", 10),
        (r"145^\circ", 145),
        (r"4\frac{1}{2}", 4.5),
        ("1,234", 1234),
        ("2^{x-x}", 1),
    ],
)
def test_values_of_formulas(text, value):
    assert [float(abs(at - value)) < 1e-12 for at in values(text).at] == [True] * 3


@pytest.mark.parametrize(
    "text",
    [
        *("", "+", "1/2x", "2^10", "x(2)", "a(b+1)", "f(x)", "3 4", "x 2", "2^3^4", "3m", "2ab", "x!", "1.5.2", "1/0"),
        *(
            r"\sin^2 x",
            r"\sin\cos x",
            r"\cos 8 \sqrt{3}",
            r"\sin x y",
            r"\sin x(2)",
            r"\log 5",
            r"2\frac{x}{3}",
            r"\text{a}",
            r"9^{9^{9^9}}",
            "2^{1000}",
        ),
        *("(1,2)", "x=2", "|x|", "2*-3", r"\sqrt[x]{2}", r"\binom{x}{2}", r"\frac{1}{0}", "0^{-1}", "X+1", "(1", "1)"),
    ],
)
def test_what_may_be_read_in_two_ways_is_not_read(text):
    assert values(text) is None


def test_a_formula_of_brackets_is_left_to_the_process_that_may_end():
    assert values("(" * 240 + "1" + ")" * 240) is None


@pytest.mark.parametrize(
    ("reference", "answer", "verdict"),
    [
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        (r"\sqrt{8}", "2.828427125", None),  # too near to tell: the exact rule decides
        (r"\sqrt{8}", "2.8284", False),
        ("2(k+1)", "2k+2", True),
        (r"\frac{x^2-1}{x-1}", "x+1", True),
        ("2k+2", "2k+3", False),
        (r"\sqrt{x^2}", "x", False),  # not for negative x
        (r"\sqrt{x}\sqrt{x}", "x", None),  # the same at every point; roots are not settled by points
        ("10^{-20}", "10^{-21}", None),
        ("x", "y", False),
        ("0", "0.0", None),
    ],
)
def test_verdicts(reference, answer, verdict):
    assert same_value(reference, answer) is verdict


def test_no_verdict_contradicts_the_table_of_answers():
    wrong, settled = [], 0
    for reference, answer, right in cases():
        texts = [_value(normal_form(text)) for text in (reference, answer)]
        compared = None not in texts and "=" not in reference + answer  # names are compared before
        if compared and (verdict := same_value(*texts)) is not None:
            settled += 1
            if verdict and not right:
                wrong.append((reference, answer))
    assert wrong == [] and settled > 150


def formula(rng: random.Random) -> str:
    forms = [
        *(r"%d\sqrt{%d}", r"\frac{%d}{%d}\pi", r"%d+\sqrt{%d}", r"\frac{\sqrt{%d}}{%d}", r"\log_{%d} %d", "%d^{%d}"),
        *(r"\binom{%d}{%d}", "%dx+%d", "%d(x+%d)", r"\frac{x+%d}{%d}", "(x+%d)(x-%d)", "x^2+%dx-%d", r"\sin %d+%d"),
    ]
    return rng.choice(forms) % (rng.randint(2, 4), rng.randint(2, 4))


def test_verdicts_are_those_of_math_verify():
    rng = random.Random(0)
    texts = list(dict.fromkeys(formula(rng) for _ in range(60)))
    pairs = [(a, b) for a in texts[:12] for b in texts if ("x" in a) == ("x" in b)]
    pairs += [(text, f"{text}+1-1") for text in texts]
    settled = [(a, b, verdict) for a, b in pairs if (verdict := same_value(a, b)) is not None]
    assert len(settled) > 200 and sum(verdict for *_, verdict in settled) > 50
    assert [(a, b) for a, b, verdict in settled if same_formula(a, b) is not verdict] == []
