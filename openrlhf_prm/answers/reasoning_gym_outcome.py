"""The outcome reward of reasoning-gym's tasks, by their own verifiers: `--reward.remote_url reasoning_gym`.

Labels are those of `convert_steps --format reasoning_gym`.
"""

from openrlhf_prm.answers.checkers import reasoning_gym_answer
from openrlhf_prm.answers.outcome import judge


def reward_func(queries: list[str], prompts: list[str], labels: list[str]) -> dict:
    """Host's interface."""
    return judge(reasoning_gym_answer, queries, prompts, labels)
