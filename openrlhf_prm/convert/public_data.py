"""Rows of public data sets -> the project's rows. One function and one line each.

prmbench       PRMBench (arXiv:2501.03124): a worked solution (`original_process`) and a copy with errors put in
               (`modified_process`), both with their question. Both become step labels for `train_prm`:

                   {"question", "steps", "hard_labels"}     0 for the steps that `error_steps` lists (from 1), else 1

               which is the benchmark's published meaning: every step is judged by itself, so a step after an error is
               wrong only where it is listed too. The original solution counts as right throughout.
gsm8k          arXiv:2110.14168: question rows `{"question", "label"}`, the label being what follows `####`.
reasoning_gym  arXiv:2505.24760: question rows, the label being the whole row as JSON, which
               `--answers.checker reasoning_gym` wants.
"""

import json
from collections.abc import Callable

from openrlhf_prm.answers.checkers import reasoning_gym_answer


def prmbench_rows(row: dict) -> list[tuple[str, dict]]:
    """(group, step-label row) of the original and of the modified solution; both belong to the group of the original
    question.

    Raises ValueError saying what is wrong with the row.
    """
    for key in ("idx", "original_question", "modified_question"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise ValueError(f"{key!r} must be a text")
    for key in ("original_process", "modified_process"):
        steps = row.get(key)
        if not isinstance(steps, list) or not steps or not all(isinstance(s, str) and s.strip() for s in steps):
            raise ValueError(f"{key!r} must be a list of texts")
    original, modified, errors = row["original_process"], row["modified_process"], row.get("error_steps")
    if not isinstance(errors, list) or not all(type(error) is int for error in errors):
        raise ValueError("'error_steps' must be a list of whole numbers")
    if not errors:
        raise ValueError("'error_steps' is empty")
    outside = [error for error in errors if not 1 <= error <= len(modified)]
    if outside:
        raise ValueError(f"'error_steps' {outside} is not among the steps 1 to {len(modified)}")
    if original == modified and row["original_question"] == row["modified_question"]:
        raise ValueError("'modified_process' is the same as 'original_process'")
    labels = [int(number not in errors) for number in range(1, len(modified) + 1)]
    right = {"question": row["original_question"], "steps": original, "hard_labels": [1] * len(original)}
    wrong = {"question": row["modified_question"], "steps": modified, "hard_labels": labels}
    return [(row["idx"], right), (row["idx"], wrong)]


def gsm8k_rows(row: dict) -> list[tuple[str, dict]]:
    """(group, question row) of a row whose `answer` ends in `#### 72`. Raises ValueError saying what is wrong with
    it.
    """
    question, answer = row.get("question"), row.get("answer")
    if not isinstance(question, str) or not question.strip():
        raise ValueError("'question' must be a text")
    if not isinstance(answer, str) or "####" not in answer:
        raise ValueError("'answer' must be a text that ends in '#### <number>'")
    label = answer.rpartition("####")[2].strip()
    if not label:
        raise ValueError("'answer' has nothing after '####'")
    return [(question, {"question": question, "label": label})]


def reasoning_gym_rows(row: dict) -> list[tuple[str, dict]]:
    """(group, question row) of one of reasoning-gym's rows. Raises ValueError where its verifier could not judge it."""
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise ValueError("'question' must be a text")
    label = json.dumps({key: row.get(key) for key in ("question", "answer", "metadata")})
    reasoning_gym_answer("", label)
    return [(question, {"question": question, "label": label})]


PUBLIC_FORMATS: dict[str, Callable[[dict], list[tuple[str, dict]]]] = {
    "prmbench": prmbench_rows,
    "gsm8k": gsm8k_rows,
    "reasoning_gym": reasoning_gym_rows,
}
"""Name of a data set -> its row's (problem, row of the project) pairs; rows of one problem belong on one side of a
split."""
