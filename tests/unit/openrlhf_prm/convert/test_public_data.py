"""Public data sets as rows of the project, on made-up rows."""

import json
from pathlib import Path

import pytest
import reasoning_gym

from openrlhf_prm.answers.checkers import answer_checker
from openrlhf_prm.convert.public_data import gsm8k_rows, prmbench_rows
from openrlhf_prm.convert.row_files import convert, split_by_problem


def solution(**changes) -> dict:
    row = {
        "idx": "a1",
        "original_question": "How many?",
        "modified_question": "How many, at most?",
        "original_process": ["2+2=4.", "So 4."],
        "modified_process": ["2+2=5.", "Then 5-1=4.", "So 5."],
        "error_steps": [1, 3],
    }
    return {**row, **changes}


def write(path: Path, *rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_prmbench_labels_the_listed_steps_only():
    right, wrong = prmbench_rows(solution())
    assert right == ("a1", {"question": "How many?", "steps": ["2+2=4.", "So 4."], "hard_labels": [1, 1]})
    # The step between two errors is right: each step is judged by itself.
    assert wrong[0] == "a1"
    assert wrong[1]["question"] == "How many, at most?"
    assert wrong[1]["hard_labels"] == [0, 1, 0]


def test_gsm8k_takes_what_follows_the_last_marker():
    row = {"question": "How much?", "answer": "48/2 = <<48/2=24>>24 #### clips\n#### 1,072"}
    assert gsm8k_rows(row) == [("How much?", {"question": "How much?", "label": "1,072"})]


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({"error_steps": [4]}, r"'error_steps' \[4\] is not among the steps 1 to 3"),
        ({"error_steps": [0]}, r"\[0\] is not among"),
        ({"error_steps": []}, "'error_steps' is empty"),
        ({"error_steps": None}, "list of whole numbers"),
        ({"error_steps": [True]}, "list of whole numbers"),
        ({"modified_process": []}, "'modified_process' must be a list of texts"),
        ({"modified_process": ["fine", " "]}, "'modified_process' must be a list of texts"),
        ({"original_question": ""}, "'original_question' must be a text"),
        ({"idx": None}, "'idx' must be a text"),
        ({"modified_process": ["2+2=4.", "So 4."], "modified_question": "How many?", "error_steps": [1]}, "the same"),
    ],
)
def test_bad_prmbench_rows_are_named_by_line(tmp_path, changes, fault):
    path = write(tmp_path / "rows.jsonl", solution(), solution(**changes))
    rows, faults = convert([path], "prmbench")
    assert len(rows) == 2 and len(faults) == 1
    assert faults[0].startswith(f"{path} line 2: ")
    with pytest.raises(ValueError, match=f"line 2: .*{fault}"):
        convert([path], "prmbench", strict=True)


def test_reasoning_gym_rows_carry_what_their_verifier_needs(tmp_path):
    row = reasoning_gym.create_dataset("chain_sum", size=1, seed=1)[0]
    path = write(tmp_path / "rows.jsonl", row, {"question": "?", "answer": "72"})
    ((group, made),), faults = convert([path], "reasoning_gym")
    assert group == made["question"] == row["question"]
    assert answer_checker("reasoning_gym")(f"Answer: {row['answer']}", made["label"])
    assert len(faults) == 1 and faults[0].startswith(f"{path} line 2: the label must be a row of reasoning-gym")


@pytest.mark.parametrize(
    "row", [{"question": "?", "answer": "72"}, {"answer": "#### 72"}, {"question": "?", "answer": "####"}]
)
def test_bad_gsm8k_rows_are_named_by_line(tmp_path, row):
    path = write(tmp_path / "rows.jsonl", row)
    with pytest.raises(ValueError, match="rows.jsonl line 1: "):
        convert([path], "gsm8k", strict=True)


def test_repeated_solutions_are_written_once_and_in_an_order_of_their_own(tmp_path):
    solutions = [solution(idx=str(i), original_question=f"Q{i}?", modified_question=f"M{i}?") for i in range(20)]
    one = write(tmp_path / "one.jsonl", *solutions)
    two = write(tmp_path / "two.jsonl", *reversed(solutions))
    rows, faults = convert([one, two], "prmbench")
    assert len(rows) == 40 and not faults
    assert rows == convert([two], "prmbench")[0]


def test_no_problem_is_on_both_sides(tmp_path):
    # The same problem in other words, as PRMBench's files have it.
    solutions = [
        solution(idx=str(i), original_question=f"Q{i}{end}", modified_question="M") for i in range(50) for end in "?!"
    ]
    rows, _ = convert([write(tmp_path / "rows.jsonl", *solutions)], "prmbench")
    train, heldout = split_by_problem(rows, 0.3)
    assert len(train) + len(heldout) == len(rows)
    problems = [{row["question"][:-1] for row in part if row["question"] != "M"} for part in (train, heldout)]
    assert problems[0] and problems[1] and not problems[0] & problems[1]
