"""The outcome reward of answers that must be the label, character for character: `--reward.remote_url exact`."""

from openrlhf_prm.answers.checkers import exact_answer
from openrlhf_prm.answers.outcome import judge


def reward_func(queries: list[str], prompts: list[str], labels: list[str]) -> dict:
    """Host's interface."""
    return judge(exact_answer, queries, prompts, labels)
