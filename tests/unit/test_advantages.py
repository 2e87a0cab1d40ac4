"""Advantage estimators on numbers a reader can check by hand."""

import pytest
import torch

from openrlhf_prm.advantages.batch import StepBatch, discounted, spread_over_tokens
from openrlhf_prm.advantages.host_baselines import HOST_BASELINES, apply_host_baseline
from openrlhf_prm.advantages.step_group import StepGroup
from openrlhf_prm.advantages.step_returns import StepReturns


def batch(rewards, ends, outcomes, group_size):
    return StepBatch(
        process_rewards=[torch.tensor(row) for row in rewards],
        step_ends=[torch.tensor(row) for row in ends],
        outcome_rewards=torch.tensor(outcomes),
        group_size=group_size,
    )


def test_spread_over_tokens():
    assert spread_over_tokens(torch.tensor([1.0, 2.0]), torch.tensor([2, 5])).tolist() == [1, 1, 2, 2, 2]


def test_step_group_by_hand():
    # Returns: [1+0, 0] + 1 = [2, 1] and [-1-1, -1] + 0 = [-2, -1]; means by step index: [0, 0].
    advantages = StepGroup(std_norm=False)(batch([[1.0, 0.0], [-1.0, -1.0]], [[1, 3], [2, 3]], [1.0, 0.0], 2))
    assert advantages[0].tolist() == [2, 1, 1]
    assert advantages[1].tolist() == [-2, -2, -1]


def test_step_group_compares_only_responses_that_have_the_step():
    advantages = StepGroup(std_norm=False)(batch([[1.0], [1.0, 1.0]], [[1], [1, 2]], [0.0, 0.0], 2))
    assert advantages[0].tolist() == [-0.5]
    assert advantages[1].tolist() == [0.5, 0.0]


def test_step_group_with_one_step_is_group_norm():
    outcomes = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5, 0.2])
    advantages = StepGroup()(batch([[0.0]] * 6, [[2]] * 6, outcomes.tolist(), 3))
    groups = outcomes.reshape(-1, 3)
    expected = (groups - groups.mean(-1, keepdim=True)) / (groups.std(-1, keepdim=True) + 1e-9)
    assert torch.stack(advantages)[:, 0].tolist() == pytest.approx(expected.reshape(-1).tolist())


def test_step_group_is_zero_where_all_agree():
    advantages = StepGroup()(batch([[0.5]] * 4, [[3]] * 4, [1.0] * 4, 4))
    assert all(row.tolist() == [0, 0, 0] for row in advantages)


def test_discounted_by_hand():
    rewards = torch.tensor([1.0, 2.0, 4.0])
    assert discounted(rewards, 1.0).tolist() == [7, 6, 4]
    assert discounted(rewards, 0.5).tolist() == [3, 4, 4]
    assert discounted(rewards, 0.0).tolist() == [1, 2, 4]


def test_step_returns_by_hand():
    # First returns 0.5 and -0.5 have mean 0; outcomes 1 and 0 become 0.5 and -0.5.
    rewards = [[0.5, 0.25], [-0.5]]
    advantages = StepReturns(lambd=0.0)(batch(rewards, [[2, 3], [2]], [1.0, 0.0], 2))
    assert advantages[0].tolist() == [1, 1, 0.75]
    assert advantages[1].tolist() == [-1, -1]


def test_a_step_that_changes_nothing_gets_nothing_from_step_returns():
    advantages = StepReturns(lambd=0.0)(batch([[0.2, 0.0], [0.2, -0.9]], [[1, 2], [1, 2]], [0.0, 0.0], 2))
    assert [row.tolist() for row in advantages] == [pytest.approx([0, 0]), pytest.approx([0, -0.9])]


def test_step_returns_with_one_step_is_the_group_mean_baseline():
    advantages = StepReturns()(batch([[0.3], [0.9]], [[1], [1]], [0.0, 0.0], 2))
    assert torch.cat(advantages).tolist() == pytest.approx([-0.3, 0.3])


@pytest.mark.parametrize("estimator", [StepGroup, StepReturns])
def test_lambda_out_of_range_is_named(estimator):
    with pytest.raises(ValueError, match="--algo.advantage.lambd"):
        estimator(lambd=1.5)


def test_batches_that_do_not_align_are_refused():
    with pytest.raises(ValueError, match="got 1 reward rows, 1 span rows, expected 2"):
        batch([[1.0]], [[1]], [1.0, 0.0], 1)
    with pytest.raises(ValueError, match="groups of 2"):
        batch([[1.0]] * 3, [[1]] * 3, [0.0] * 3, 2)
    with pytest.raises(ValueError, match="response 1 has 2 step rewards, expected 1"):
        batch([[1.0], [1.0, 1.0]], [[1], [1]], [0.0] * 2, 2)
    with pytest.raises(ValueError, match="no step"):
        StepBatch([torch.empty(0)], [torch.empty(0)], torch.zeros(1), 1)


def rows(values):
    return [torch.tensor(row) for row in values]


def test_host_baselines_by_hand():
    group = rows([[1.0, 0.0], [2.0]])
    assert [row.tolist() for row in apply_host_baseline("gae", group, 2)] == [[1, 0], [2]]
    assert [row.tolist() for row in apply_host_baseline("dr_grpo", group, 2)] == [[0, -1], [1]]
    assert [row.tolist() for row in apply_host_baseline("rloo", group, 2)] == [[-1, -2], [1.5]]
    normed = apply_host_baseline("group_norm", group, 2)
    assert normed[0].tolist() + normed[1].tolist() == pytest.approx([0, -1, 1])


def test_baselines_do_not_mix_groups_but_flash_reinforce_takes_the_batch():
    groups = rows([[1.0], [3.0], [10.0], [10.0]])
    assert [float(row) for row in apply_host_baseline("dr_grpo", groups, 2)] == [-1, 1, 0, 0]
    assert [float(row) for row in apply_host_baseline("flash_reinforce", groups, 2)] == [-5, -3, 4, 4]


def test_one_step_per_response_is_what_the_host_does_to_a_scalar_reward():
    rewards = torch.tensor([0.3, 0.9, 0.1])
    got = {name: torch.cat(apply_host_baseline(name, list(rewards.split(1)), 3)) for name in HOST_BASELINES}
    mean, std = rewards.mean(), rewards.std()
    assert torch.allclose(got["group_norm"], (rewards - mean) / (std + 1e-9))
    assert torch.allclose(got["rloo"], rewards - (rewards.sum() - rewards) / 2)
    assert torch.allclose(got["reinforce_baseline"], rewards - mean)
    assert torch.allclose(got["reinforce"], rewards)


@pytest.mark.parametrize("name", HOST_BASELINES)
def test_a_group_of_one_step_degenerates_without_nan(name):
    assert torch.isfinite(apply_host_baseline(name, rows([[0.7]]), 1)[0]).all()
