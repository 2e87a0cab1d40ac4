"""PRIME's token rewards, loss and estimator, on numbers a reader can check by hand."""

import math

import pytest
import torch
from mixed_rollouts import mixer, rollout

from openrlhf_prm.advantages.estimator import StepBatch
from openrlhf_prm.advantages.prime import Prime
from openrlhf_prm.ppo.rollout.records import StepRecord
from openrlhf_prm.rewards.implicit import Implicit, outcome_loss


def test_every_token_is_rewarded_by_its_log_ratio():
    rewards, ends = Implicit(beta=0.5)(torch.tensor([2.0, -1.0, 4.0]), torch.tensor([2, 3]))
    assert rewards.tolist() == [1.0, -0.5, 2.0] and ends.tolist() == [1, 2, 3]


def test_or_every_step_by_the_sum_of_its_tokens():
    rewards, ends = Implicit(beta=0.5, granularity="step")(torch.tensor([2.0, -1.0, 4.0]), torch.tensor([2, 3]))
    assert rewards.tolist() == [0.5, 2.0] and ends.tolist() == [2, 3]


def test_log_ratios_must_reach_to_the_end_of_the_last_step():
    for ends in ([2], []):
        with pytest.raises(ValueError, match="log-ratios must align with steps: got 3 tokens"):
            Implicit()(torch.zeros(3), torch.tensor(ends))


def test_the_loss_is_cross_entropy_of_the_summed_log_ratio():
    # beta * sum is log 3 and -log 3: chances 3/4 and 1/4.
    ratios = torch.tensor([[math.log(3), math.log(3)], [0.0, -2 * math.log(3)], [0.0, 0.0]])
    losses = outcome_loss(ratios, torch.tensor([True, True, False]), beta=0.5)
    assert losses.tolist() == pytest.approx([-math.log(0.75), -math.log(0.25), math.log(2)])


def test_its_gradient_raises_the_tokens_of_right_responses():
    ratios = torch.zeros(2, 3, requires_grad=True)
    outcome_loss(ratios, torch.tensor([1, 0]), beta=0.05).sum().backward()
    assert ratios.grad[0].tolist() == pytest.approx([-0.025] * 3)
    assert ratios.grad[1].tolist() == pytest.approx([0.025] * 3)


def test_prime_by_hand():
    # Means 1.5 and -1 are each other's baselines: rewards less them [2, 3] and [-2.5]; outcomes 1 and -1.
    batch = StepBatch(
        process_rewards=[torch.tensor([1.0, 2.0]), torch.tensor([-1.0])],
        step_ends=[torch.tensor([1, 3]), torch.tensor([2])],
        outcome_rewards=torch.tensor([1.0, 0.0]),
        group_size=2,
    )
    first, second = Prime(std_norm=False)(batch)
    assert first.tolist() == [6.0, 4.0, 4.0] and second.tolist() == [-3.5, -3.5]
    whitened = torch.cat(Prime()(batch))
    assert whitened.mean().item() == pytest.approx(0.0, abs=1e-6) and whitened.std().item() == pytest.approx(1.0)


def test_prime_gives_nothing_where_all_agree():
    batch = StepBatch(
        process_rewards=[torch.zeros(2)] * 2,
        step_ends=[torch.tensor([1, 2])] * 2,
        outcome_rewards=torch.ones(2),
        group_size=2,
    )
    assert torch.cat(Prime()(batch)).tolist() == [0.0] * 4


def test_token_rewards_are_mixed_without_any_step_score():
    records = [StepRecord((2, 4), None, 0.0, 0.0)] * 4
    ratios = [torch.tensor([1.0, -1.0, 2.0, 0.0])] * 4
    flags = ("--process_reward.shaping", "implicit", "--process_reward.beta", "0.5")
    mixed = mixer(*flags, "--process_reward.coef", "2")(rollout(records=records, log_ratios=ratios))
    assert (mixed.weight * mixed.process[0]).tolist() == [1.0, -1.0, 2.0, 0.0]
    assert mixed.ends[0].tolist() == [1, 2, 3, 4]
    assert mixed.columns["process/reward"].tolist() == [2.0] * 4
    assert "process/step_score" not in mixed.columns and mixed.columns["process/hacking"].tolist() == [0.0] * 4
    by_steps = mixer(*flags, "--process_reward.granularity", "step")(rollout(records=records, log_ratios=ratios))
    assert by_steps.process[0].tolist() == [0.0, 1.0] and by_steps.ends[0].tolist() == [2, 4]


def test_malformed_responses_get_no_positive_token_reward():
    flags = ("--process_reward.shaping", "implicit", "--process_reward.format_pattern", "boxed")
    records = [StepRecord((2, 4), None, 0.0, 0.0)] * 4
    ratios = [torch.tensor([20.0, -20.0, 0.0, 0.0])] * 4
    process = mixer(*flags)(rollout(records=records, log_ratios=ratios)).process
    assert process[0].tolist() == [1.0, -1.0, 0.0, 0.0] and process[1].tolist() == [0.0, -1.0, 0.0, 0.0]
