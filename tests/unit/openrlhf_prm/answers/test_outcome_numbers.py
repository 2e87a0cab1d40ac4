"""Outcome rewards in every shape that the host takes, and those that are refused."""

import numpy as np
import pytest
import torch

from openrlhf_prm.answers.outcome_numbers import outcome_number

SOURCE = "--reward.remote_url reward.py"


@pytest.mark.parametrize(
    "reward",
    [
        *(1.0, 1, True, [1.0], (1,), [[1.0]], np.float32(1), np.array(1.0), np.array([1.0]), [np.array([[1.0]])]),
        *(torch.tensor(1.0), torch.tensor([[1.0]]), [torch.tensor([1])]),
    ],
)
def test_one_number_in_any_shape(reward):
    assert outcome_number(reward, SOURCE, "p") == 1.0


@pytest.mark.parametrize("reward", [[1.0, 2.0], [], np.array([1.0, 2.0]), torch.zeros(2), "1", {"rewards": 1.0}])
def test_other_shapes_name_the_flag_and_the_prompt(reward):
    with pytest.raises(
        ValueError, match="^--reward.remote_url reward.py gave the reward .* for the prompt 'p', expected a n"
    ):
        outcome_number(reward, SOURCE, "p")


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), [-float("inf")], np.float64("nan")])
def test_what_is_not_finite_names_the_flag_and_the_prompt(reward):
    with pytest.raises(ValueError, match="reward.py gave the reward .* for the prompt 'p', expected a finite number"):
        outcome_number(reward, SOURCE, "p")
