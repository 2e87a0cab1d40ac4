"""Answer extraction and equivalence."""

import json

import pytest
import reasoning_gym

from openrlhf_prm.answers import reasoning_gym_outcome
from openrlhf_prm.answers.checkers import (
    answer_checker,
    exact_answer,
    extract_answer,
    math_answer,
    reasoning_gym_answer,
)


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
        ("<answer>1</answer> no, <answer>\n2 </answer> Answer: 3", "2"),
        ("<answer> </answer>", None),
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


def test_lists_are_no_number():
    assert not math_answer(r"\boxed{1, 2}", "12")
    assert not math_answer(r"\boxed{1,2}", "12")
    assert not math_answer("Answer: 1 2", "12")
    assert math_answer(r"\boxed{2, 1}", "1, 2"), "roots in any order"
    assert math_answer(r"\boxed{1{,}234}", "1234") or math_answer(r"\boxed{1,234,567.5}", "1234567.5")


def test_an_endless_answer_is_compared_as_text():
    assert not math_answer("Answer: " + "9" * 5000, "9")


def test_a_checker_from_a_file_and_its_errors(tmp_path):
    file, without = tmp_path / "check.py", tmp_path / "empty.py"
    file.write_text("def is_correct(response, label):\n    return label in response\n")
    without.write_text("is_it = 1\n")
    assert answer_checker(str(file))("abc", "b")
    assert answer_checker(f"{file}:is_correct") is answer_checker(str(file))
    with pytest.raises(ValueError, match="defines no is_correct"):
        answer_checker(str(without))
    with pytest.raises(ValueError, match="must be a function"):
        answer_checker(f"{without}:is_it")
    with pytest.raises(ValueError, match="choose one of math, exact, reasoning_gym, or give FILE.py:Name"):
        answer_checker("fuzzy")


def test_reasoning_gym_accepts_every_answer_its_verifier_does():
    metadata = {"source_dataset": "countdown", "numbers": [6, 61, 94, 4], "target": 309}
    label = json.dumps({"question": "Calculate 309.", "answer": "94*4 - 61 - 6", "metadata": metadata})
    for answer in ("94*4 - 61 - 6", "4*94 - (6+61)"):
        assert reasoning_gym_answer(f"I try.\n<answer>{answer}</answer>", label)
        assert reasoning_gym_answer(f"Answer: {answer}", label)
    assert not reasoning_gym_answer("Answer: 94*4 - 61 - 4", label)
    assert not reasoning_gym_answer("I give up.", label)
    found = reasoning_gym_outcome.reward_func(["Q?Answer: 4*94-67"], ["Q?"], [label])
    assert found["rewards"] == found["scores"] == 0.0
    found = reasoning_gym_outcome.reward_func(["Q?Answer: 4*94-(6+61)"], ["Q?"], [label])
    assert found["rewards"] == found["scores"] == 1.0


def test_reasoning_gyms_part_marks_are_no_right_answer():
    row = reasoning_gym.create_dataset("chain_sum", size=1, seed=1)[0]
    assert reasoning_gym_answer(f"Answer: {row['answer']}", json.dumps(row))
    assert not reasoning_gym_answer(f"Answer: {row['answer']}0", json.dumps(row))


def test_an_answer_that_makes_a_verifier_raise_is_wrong():
    row = reasoning_gym.create_dataset("prime_factorization", size=1, seed=1)[0]
    with pytest.raises(ValueError):
        reasoning_gym.get_score_answer_fn("prime_factorization")("two times three", row)
    assert not reasoning_gym_answer("Answer: two times three", json.dumps(row))
    assert reasoning_gym_answer(f"Answer: {row['answer']}", json.dumps(row))


@pytest.mark.parametrize(
    "label",
    ["72", "no JSON", "[]", '{"answer": "1"}', '{"answer": "1", "metadata": {"source_dataset": "unheard_of"}}'],
)
def test_reasoning_gym_wants_its_own_rows(label):
    with pytest.raises(ValueError, match="must be a row of reasoning-gym as JSON"):
        reasoning_gym_answer("Answer: 1", label)
