"""Answers that are the same vote together."""

import pytest

from openrlhf_prm.answers.grouping import answer_classes


@pytest.mark.parametrize(
    ("answers", "classes"),
    [
        ([r"\frac{1}{2}", "0.5", r"\dfrac12", "3", "3"], [0, 0, 0, 3, 3]),
        (["5", "x=5", "5/5", "1"], [0, 0, 2, 2]),
        (["1{,}200", "1,200", "1200.0"], [0, 0, 0]),
        ([r"\text{Evelyn}", "Evelyn", "Carla"], [0, 0, 2]),
        (["(1,2)", "(1, 2)", "(2, 1)"], [0, 0, 2]),
        ([r"2\sqrt{3}", r"\sqrt{12}", r"\sqrt{3}"], [0, 0, 2]),
        ([None, "7", None, "7 apples"], [None, 1, None, 1]),
        (["$5$", "+5", "0.50", ".5", "4/8", "3.", "3"], [0, 0, 2, 2, 2, 5, 5]),
        (["1", "-1", "(1,2)", "12", "1/0", "0"], [0, 1, 2, 3, 4, 5]),
        (["9" * 5000, "9" * 5001, "9" * 5000], [0, 1, 0]),
        ([], []),
    ],
)
def test_classes_of_answers(answers, classes):
    assert answer_classes(answers) == classes
