"""Answer extraction and equivalence: response + reference answer -> outcome reward.

Equivalence is math-verify's (LaTeX, fractions, sets, units), with a fast path for plain numbers because annotation
checks many thousands of rollouts. Tasks of reasoning-gym are judged by its own verifiers. A user's own check is a
Python file with `is_correct(response, label) -> bool`.
"""

import json
import re
from collections.abc import Callable
from fractions import Fraction

from openrlhf_prm.answers.process import AnswerProcess
from vllm_prm.extension_files import resolve

AnswerChecker = Callable[[str, str], bool]

_BOXED = re.compile(r"\\boxed\s*\{")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_MARKED = re.compile(r"(?:####|answer\s+is\s*:?|answer\s*[:=])\s*(.+)", re.IGNORECASE)
# A longer "answer" is a model gone astray.
_LONGEST = 500
# Commas only where they part thousands: "1, 2" and "1,2" are two numbers.
_NUMBER = re.compile(r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)")
_MATH_VERIFY = AnswerProcess()


def extract_answer(response: str) -> str | None:
    r"""The final answer of a response as text: the last `<answer>...</answer>` or `\boxed{...}`, else what follows the
    last `####`, `Answer:` or `answer is` to the end of its line. None where the response states no answer, as a
    response cut short does not.
    """
    if tagged := _TAGGED.findall(response):
        return tagged[-1].strip() or None
    if boxes := list(_BOXED.finditer(response)):
        return _balanced(response, boxes[-1].end())
    if marked := _MARKED.findall(response):
        return marked[-1].strip().rstrip(".").strip() or None
    return None


def _balanced(text: str, start: int) -> str | None:
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position].strip()
    return None


def math_answer(response: str, label: str) -> bool:
    """Whether the response's final answer equals the reference, as mathematics rather than as text.

    The reference may be a bare answer or a worked solution that states one (`#### 72`). A response that states no
    answer is wrong.
    """
    answer = extract_answer(response)
    if answer is None:
        return False
    reference = extract_answer(label) or label
    if len(answer) > _LONGEST:
        return answer == reference
    given, wanted = _as_number(answer), _as_number(reference)
    if given is not None and wanted is not None:
        return given == wanted
    return _MATH_VERIFY.same(reference, answer)


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


def _as_number(text: str) -> Fraction | None:
    text = text.strip().strip("$").replace("\\", "").strip()
    if not _NUMBER.fullmatch(text):
        return None
    return Fraction(text.replace(",", ""))
