"""Reward shapings on numbers a reader can check by hand."""

import math

import pytest
import torch

from openrlhf_prm.rewards import REWARD_SHAPINGS, SCORE_SCALES
from openrlhf_prm.rewards.min_form import MinForm
from openrlhf_prm.rewards.potential import Potential
from openrlhf_prm.rewards.sum_form import SumForm


def test_scales_map_probabilities_to_what_shapings_expect():
    scores = torch.tensor([0.0, 0.5, 1.0])
    assert SCORE_SCALES["signed"](scores).tolist() == [-1.0, 0.0, 1.0]
    assert SCORE_SCALES["probability"](scores).tolist() == [0.0, 0.5, 1.0]


def test_sum_form_is_the_scores():
    assert SumForm()(torch.tensor([0.2, -0.4])).tolist() == pytest.approx([0.2, -0.4])


def test_min_form_by_hand():
    rewards = MinForm(temperature=1.0)(torch.tensor([1.0, -1.0]))
    weight = math.exp(1) / (math.exp(1) + math.exp(-1))
    assert rewards.tolist() == pytest.approx([1 - weight, -weight])


def test_min_form_puts_the_return_on_the_worst_step():
    rewards = MinForm()(torch.tensor([0.9, -0.8, 0.9, 0.7]))
    returns = rewards.flip(0).cumsum(0).flip(0)
    assert returns.tolist() == pytest.approx([-0.8, -0.8, 0.0, 0.0], abs=1e-4)


def test_min_form_gains_nothing_from_more_good_steps():
    short, long = MinForm()(torch.tensor([0.9])), MinForm()(torch.full((10,), 0.9))
    assert short.sum().item() == pytest.approx(long.sum().item())


def test_min_form_shares_equal_scores():
    assert MinForm()(torch.tensor([0.5, 0.5])).tolist() == pytest.approx([0.25, 0.25])


def test_potential_telescopes_and_spares_steps_after_the_error():
    rewards = Potential(initial=1.0)(torch.tensor([1.0, -1.0, -1.0]))
    assert rewards.tolist() == [0.0, -2.0, 0.0]
    assert rewards.sum().item() == -1.0 - 1.0


@pytest.mark.parametrize("shaping", REWARD_SHAPINGS.values())
def test_no_step_and_one_step(shaping):
    assert shaping()(torch.empty(0)).shape == (0,)
    assert shaping()(torch.tensor([0.5])).shape == (1,)


@pytest.mark.parametrize("shaping", REWARD_SHAPINGS.values())
def test_scores_are_not_changed_in_place(shaping):
    scores = torch.tensor([0.5, -0.5])
    shaping()(scores)
    assert scores.tolist() == [0.5, -0.5]


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="--process_reward.temperature"):
        MinForm(temperature=0.0)
