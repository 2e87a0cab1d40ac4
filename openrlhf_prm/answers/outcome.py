"""The outcome reward of mathematical answers, as the host wants it: `--reward.remote_url math`.

1 for a right final answer, 0 for a wrong one or none. Answers are compared by `openrlhf_prm.answers.checkers`.
"""

from openrlhf_prm.answers.checkers import AnswerChecker, math_answer
from openrlhf_prm.answers.own_response import own_response


def judge(is_correct: AnswerChecker, queries: list[str], prompts: list[str], labels: list[str]) -> dict:
    """Queries are prompt + response, one of each here. Returns rewards, 0/1 scores, what to log."""
    (query,), (prompt,), (label,) = queries, prompts, labels
    correct = float(is_correct(own_response(query, prompt), str(label)))
    return {"rewards": correct, "scores": correct, "extra_logs": {"accuracy": correct}}


def reward_func(queries: list[str], prompts: list[str], labels: list[str]) -> dict:
    """Host's interface."""
    return judge(math_answer, queries, prompts, labels)
