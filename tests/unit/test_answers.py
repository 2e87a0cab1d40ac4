"""Answer extraction and equivalence."""

import pytest

from openrlhf_prm.answers import answer_checker, exact_answer, extract_answer, math_answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("1+1=2\nAnswer: 2\n", "2"),
        (r"so \boxed{\frac{1}{2}} done", r"\frac{1}{2}"),
        (r"\boxed{1} then \boxed{x^{2}}", "x^{2}"),
        ("blah #### 1,234", "1,234"),
        ("The answer is 7.", "7"),
        ("no answer here 12", None),
        (r"\boxed{unclosed", None),
        ("", None),
    ],
)
def test_extract(response, answer):
    assert extract_answer(response) == answer


def test_a_right_number_inside_a_wrong_answer_is_wrong():
    assert not math_answer("Answer: 120", "12")
    assert not math_answer("it could be 12\nAnswer: 13", "12")
    assert not math_answer("12 is near", "12")


def test_equivalence_is_mathematical():
    assert math_answer("Answer: 1,234.0", "1234")
    assert math_answer(r"\boxed{\frac{1}{2}}", "0.5")
    assert math_answer("Answer: 72", "Natalia sold 48/2 = 24.\n#### 72")
    assert not math_answer(r"\boxed{\frac{1}{3}}", "0.5")
    assert not exact_answer("Answer: 1,234", "1234")


def test_an_endless_answer_is_compared_as_text():
    assert not math_answer("Answer: " + "9" * 5000, "9")


def test_own_checker_and_its_errors(tmp_path):
    own = tmp_path / "check.py"
    own.write_text("def is_correct(response, label):\n    return label in response\n")
    assert answer_checker(str(own))("abc", "b")
    own.write_text("x = 1\n")
    with pytest.raises(ValueError, match="defines no is_correct"):
        answer_checker(str(own))
    with pytest.raises(ValueError, match="choose math, exact or an existing .py file"):
        answer_checker("fuzzy")
