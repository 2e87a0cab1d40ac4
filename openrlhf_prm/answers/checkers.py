"""Answer extraction and equivalence: response + reference answer -> outcome reward.

Equivalence is math-verify's (LaTeX, fractions, sets, units), with a fast path for plain numbers because annotation
checks many thousands of rollouts. Tasks of reasoning-gym are judged by its own verifiers. A user's own check is a
Python file with `is_correct(response, label) -> bool`.
"""

import json
from collections.abc import Callable

from openrlhf_prm.answers.comparison import same_answer
from openrlhf_prm.answers.final_answer import extract_answer
from vllm_prm.extension_files import resolve

AnswerChecker = Callable[[str, str], bool]


def math_answer(response: str, label: str) -> bool:
    """Whether the response's final answer (`final_answer`) is the reference's, as mathematics rather than as text
    (`comparison`).

    The reference may be a bare answer or a worked solution that states one (`#### 72`). A response that states no
    answer is wrong.
    """
    answer = extract_answer(response)
    return answer is not None and same_answer(extract_answer(label) or label, answer)


def exact_answer(response: str, label: str) -> bool:
    """Whether the response's final answer is the reference, character for character."""
    return extract_answer(response) == label.strip()


def reasoning_gym_answer(response: str, label: str) -> bool:
    """Whether reasoning-gym's verifier of the task gives the response's final answer full marks: a task may have many
    right answers. Part marks, which its verifiers give for an answer that merely contains the right one, are wrong, and
    so is an answer that a verifier cannot parse.

    The label is the task's row as JSON, with `answer` and `metadata` (`convert_steps --format reasoning_gym` writes
    it). Raises ValueError for any other label, and where reasoning-gym is not installed.
    """
    try:
        import reasoning_gym  # imported late: its hundred tasks take seconds
    except ImportError as error:
        raise ValueError(f"reasoning-gym cannot be imported ({error}): pip install reasoning-gym") from None

    try:
        row = json.loads(label)
        verify = reasoning_gym.get_score_answer_fn(row["metadata"]["source_dataset"])
        row["answer"]
    except (json.JSONDecodeError, KeyError, TypeError, ValueError):
        raise ValueError(
            "the label must be a row of reasoning-gym as JSON, with answer and metadata.source_dataset; "
            f"got {label[:80]!r}"
        ) from None
    answer = extract_answer(response)
    if answer is None:
        return False
    try:
        return verify(answer, row) == 1.0
    except Exception:  # what a verifier raises at text of another form differs from task to task
        return False


ANSWER_CHECKERS: dict[str, AnswerChecker] = {
    "math": math_answer,
    "exact": exact_answer,
    "reasoning_gym": reasoning_gym_answer,
}


def answer_checker(name: str) -> AnswerChecker:
    """The checker of that name, or `is_correct` of `FILE.py`, or the function that `FILE.py:NAME` gives.

    Raises ValueError for an unknown name, a missing file, or a file without that function.
    """
    is_file = name.endswith(".py") and name not in ANSWER_CHECKERS
    checker = resolve(ANSWER_CHECKERS, f"{name}:is_correct" if is_file else name, "answer checker")
    if not callable(checker):
        raise ValueError(f"{name} must be a function of response and label that gives a verdict")
    return checker
