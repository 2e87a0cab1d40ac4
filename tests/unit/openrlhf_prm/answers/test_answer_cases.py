"""The table of answers, each stated in several ways; and what counts as the final answer of a response."""

import pytest
from answer_cases import cases

from benchmarks.answers import PHRASINGS
from openrlhf_prm.answers.checkers import math_answer
from openrlhf_prm.answers.comparison import same_answer
from openrlhf_prm.answers.final_answer import extract_answer

CASES = cases()


def test_the_table_is_large_and_has_as_many_wrong_answers_as_right_ones():
    right = sum(verdict for *_, verdict in CASES)
    assert 200 < right <= len(CASES) - right


@pytest.mark.parametrize(("reference", "answer", "right"), CASES)
def test_bare_answers(reference, answer, right):
    assert same_answer(reference, answer) is right


@pytest.mark.parametrize("name", PHRASINGS)
def test_stated_answers(name):
    missed = []
    for reference, answer, right in CASES:
        if name in ("heading", "I hope", "after thinking") and answer.startswith(r"\$"):
            continue  # money inside of dollar signs is no LaTeX
        if math_answer(PHRASINGS[name].format(answer), reference) is not right:
            missed.append((reference, answer, right))
    assert missed == []


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("The answer is 7 because 3 + 5 = 8.", "7"),
        ("The answer is 7, since 3 + 5 = 8.", "7"),
        ("Answer: 12 (twelve apples)", "12"),
        ("Answer: 5\nThis answer is consistent.", "5"),
        ("The answer is 5. That answer is consistent with the question.", "5"),
        ("<think>\\boxed{4}?</think> The answer is 5", "5"),
        ("maybe \\boxed{4}</think>\nThe answer is 5", "5"),
        ("<think>\\boxed{4}, or else", None),
        ("\\boxed{4} is wrong, so \\boxed{5}", "5"),
        ("$x = \\boxed{1}$ or $x = \\boxed{2}$", "1, 2"),
        ("\\fbox{5}", "5"),
        ("\\boxed 5", "5"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{5", None),
        ("<answer>5</answer> and \\boxed{6}", "5"),
        ("<answer>so \\boxed{6}</answer>", "6"),
        ("**Final Answer**\n\n18", "18"),
        ("### Final answer:\n\n> 18", "18"),
        ("The answer is $x=2$ and $x=3$.", "x=2, x=3"),
        ("The answer is \\(5\\) apples.", "5"),
        ("The answer is Evelyn.", "Evelyn"),
        ("The correct answer is **(B)** because", "(B)"),
        ("Ends in the middle of 3+4=", None),
        ("", None),
    ],
)
def test_the_final_answer_of_a_response(response, answer):
    assert extract_answer(response) == answer


def test_a_label_may_end_with_a_newline_or_be_a_worked_solution():
    assert math_answer("Answer: 5", "5\n")
    assert math_answer("Answer: 5", "2 + 3 = 5\n#### 5\n")


def test_all_boxes_of_an_answer_must_match():
    assert math_answer("\\boxed{2} and \\boxed{1}", "1, 2")
    assert not math_answer("\\boxed{1} or \\boxed{2}", "2")
