"""The arithmetic task and its exact checker."""

import random

import pytest

from openrlhf_prm.tasks.arithmetic import (
    HabitMix,
    careful_step,
    check_steps,
    demonstration,
    habit_of,
    questions,
    quick_step,
    split_of,
)

QUESTION = "Q: 17+15+20=?\n"


def test_habits_by_hand():
    assert quick_step(12, 35) == ("12+35=47", 47)
    assert quick_step(17, 15) == ("17+15=22", 22)
    assert careful_step(47, 48) == ("47+48: 7+8=15, 4+4+1=9 > 95", 95)
    assert careful_step(87, 31) == ("87+31: 7+1=8, 8+3=11 > 118", 118)


def test_right_solutions_are_right_throughout():
    assert check_steps(QUESTION, ["17+15: 7+5=12, 1+1+1=3 > 32", "so 32", "32+20=52", "Answer: 52"]) == [True] * 4


def test_everything_after_the_first_error_is_wrong():
    assert check_steps(QUESTION, ["17+15=22", "22+20=42", "Answer: 42"]) == [False] * 3
    assert check_steps(QUESTION, ["17+15=32", "32+20=51", "32+20=52"]) == [True, False, False]


@pytest.mark.parametrize(
    "steps",
    [
        ["17+20=37"],  # skips an operand
        ["17+15: 7+5=12, 1+1=2 > 32"],  # right result from wrong work
        ["so 18"],
        ["Answer: 52"],  # operands left over
        ["hello"],
        [""],
    ],
)
def test_wrong_first_steps(steps):
    assert check_steps(QUESTION, steps) == [False]


def test_no_steps_and_no_question():
    assert check_steps(QUESTION, []) == []
    with pytest.raises(ValueError, match="not an arithmetic question"):
        check_steps("what is 2+2?", [])


def test_named_operands():
    question = "Q: 17+a15+b20=?\n"
    steps = ["17+a15: 7+5=12, 1+1+1=3 > 32", "so 32", "32+b20=52", "Answer: 52"]
    assert check_steps(question, steps) == [True] * 4
    assert [habit_of(step) for step in steps] == ["careful", "filler", "quick", "answer"]
    for wrong in ("17+15=32", "17+b15=32", "17+a15=22"):
        assert check_steps(question, [wrong]) == [False]
    for broken in ("Q: 17+b15+a20=?", "Q: 17+a15+20=?"):
        with pytest.raises(ValueError, match="named abc"):
            check_steps(broken, [])
    rng, mix = random.Random(0), HabitMix(quick=0.0, named=True, additions=(12,))
    question, answer = next(questions("train", 1, 0, mix))
    solution = demonstration(question, rng, mix).strip().split("\n")
    assert all(check_steps(question, solution)) and solution[-1] == f"Answer: {answer}"
    with pytest.raises(ValueError, match="at most 12 additions"):
        next(questions("train", 1, 0, HabitMix(named=True, additions=(13,))))


def test_splits_are_disjoint_and_repeatable():
    splits = {name: {q for q, _ in questions(name, 200, seed=3)} for name in ("train", "tune", "test")}
    assert not splits["train"] & splits["test"] and not splits["tune"] & splits["test"]
    assert all(split_of(q) == name for name, members in splits.items() for q in members)
    assert list(questions("test", 20, seed=3)) == list(questions("test", 20, seed=3))
    with pytest.raises(ValueError, match="train, tune, test"):
        next(questions("dev", 1, 0))


def test_careful_demonstrations_are_always_right():
    rng, mix = random.Random(0), HabitMix(quick=0.0)
    for question, answer in questions("train", 100, seed=0):
        steps = demonstration(question, rng, mix).strip().split("\n")
        assert all(check_steps(question, steps))
        assert steps[-1] == f"Answer: {answer}"


def test_more_than_one_filler_a_step():
    mix, rng = HabitMix(quick=0.0, filler=2.0), random.Random(0)
    counts = [demonstration("Q: 10+21=?\n", rng, mix).count("so 31") for _ in range(400)]
    assert set(counts) == {0, 1, 2, 3, 4} and sum(counts) / 400 == pytest.approx(2.0, abs=0.2)


def test_the_quick_habit_grows_with_the_digit_that_is_added():
    mix, rng = HabitMix(quick=0.0, quick_per_unit=0.125, filler=0.0), random.Random(0)
    for digit, share in ((0, 0.0), (4, 0.5), (8, 1.0)):
        lines = [demonstration(f"Q: 10+2{digit}=?\n", rng, mix).splitlines()[0] for _ in range(400)]
        assert sum(habit_of(line) == "quick" for line in lines) / 400 == pytest.approx(share, abs=0.08)


def test_habit_of():
    assert [habit_of(s) for s in ("1+2=3", "1+2: 1+2=3, 0+0=0 > 3", "so 3", "Answer: 3", "?")] == [
        "quick",
        "careful",
        "filler",
        "answer",
        "other",
    ]
