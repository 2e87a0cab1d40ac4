"""Step scores and outcomes of a batch -> an advantage per token, with torch alone: `python -m
examples.other_trainers.token_advantages`.

For a trainer that takes advantages (or rewards) per token. The shapings and estimators of `openrlhf_prm` are tensors
in, tensors out, and import neither OpenRLHF nor vLLM.
"""

import argparse

import torch

from openrlhf_prm.advantages import ADVANTAGE_ESTIMATORS
from openrlhf_prm.advantages.estimator import StepBatch
from openrlhf_prm.rewards import REWARD_SHAPINGS
from openrlhf_prm.rewards.shaping import shape


def token_advantages(
    step_scores: list[list[float]],
    step_ends: list[list[int]],
    outcomes: list[float],
    samples: int,
    *,
    shaping: str = "min_form",
    estimator: str = "step_group",
    prm_weight: float = 1.0,
) -> list[torch.Tensor]:
    """B responses, `samples` of each question together -> B tensors (T_b,).

    `step_scores`: p in [0, 1] for each step. `step_ends`: for each step the number of the response's tokens up to its
    end. `outcomes`: 1 for a right answer, else 0. `shaping`, `estimator`: keys of the registries.
    """
    scores = [torch.tensor(row, dtype=torch.float32) for row in step_scores]
    rewards = shape(REWARD_SHAPINGS[shaping](), scores, torch.tensor(outcomes) > 0.5, samples)
    batch = StepBatch(
        step_ends=[torch.tensor(ends) for ends in step_ends],
        outcome_rewards=torch.tensor(outcomes, dtype=torch.float32),
        group_size=samples,
        process_rewards=[prm_weight * row for row in rewards],
    )
    return ADVANTAGE_ESTIMATORS[estimator]()(batch)


def main() -> None:
    """Two samples of one question: the second goes wrong in its last step."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    advantages = token_advantages(
        step_scores=[[0.9, 0.8, 0.9], [0.9, 0.7, 0.1]],
        step_ends=[[4, 9, 12], [5, 8, 14]],
        outcomes=[1.0, 0.0],
        samples=2,
    )
    for row in advantages:
        print([round(value, 2) for value in row.tolist()])


if __name__ == "__main__":
    main()
