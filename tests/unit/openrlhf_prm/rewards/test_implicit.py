"""PRIME's token rewards, loss, estimator and batches, on numbers a reader can check by hand."""

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


def test_rows_are_shared_so_that_every_rank_has_as_many_micro_batches():
    from openrlhf_prm.ppo.response_rows import shares

    assert shares(5, ranks=2, micro_batch=2) == [
        [([0, 2], [1.0, 1.0]), ([4, 0], [1.0, 0.0])],
        [([1, 3], [1.0, 1.0]), ([0, 0], [0.0, 0.0])],
    ]
    assert shares(1, ranks=2, micro_batch=8) == [[([0], [1.0])], [([0], [0.0])]]
    assert shares(3, ranks=1, micro_batch=8) == [[([0, 1, 2], [1.0] * 3)]]


def test_rows_are_padded_on_the_right():
    from openrlhf_prm.ppo.response_rows import padded

    rows = [
        (torch.tensor([5, 6, 7]), torch.tensor([False, True])),
        (torch.tensor([8, 9]), torch.tensor([True])),
    ]
    tokens, attention, actions = padded(rows, pad_token_id=1)
    assert tokens.tolist() == [[5, 6, 7], [8, 9, 1]]
    assert attention.tolist() == [[1, 1, 1], [1, 1, 0]] and actions.tolist() == [[0, 1], [1, 0]]


class TwoRanks:
    """Stands for the group of two actors: a token's log-ratio is its id, and 100 more once the PRM was trained."""

    def __init__(self):
        self.trained = 0
        self.batches = []

    def async_run_method(self, method, rows, *arguments):
        return [getattr(self, method)(rank, rows, *arguments) for rank in range(2)]

    def log_ratios(self, rank, rows, batches):
        return [
            rows[index][0][1:][rows[index][1]].float() + 100.0 * bool(self.trained)
            for chosen, weights in batches[rank]
            for index, weight in zip(chosen, weights, strict=True)
            if weight
        ]

    def update(self, rank, rows, labels, batches):
        self.trained += 1
        if rank == 0:
            self.batches.append([(tokens[0].item(), label) for (tokens, _), label in zip(rows, labels, strict=True)])
        return {"online_prm/loss": float(len(rows))}


def online_prm(monkeypatch, update: str):
    from openrlhf_prm.ppo import online_prm as module

    monkeypatch.setattr(module.ray, "get", lambda refs: refs)
    monkeypatch.setattr(module.ray, "put", lambda value: value)
    prm = object.__new__(module.OnlinePRM)
    prm.update_first, prm.seed, prm.batch_size, prm.ranks = update == "before", 3, 2, 2
    prm.micro_train = prm.micro_judge = 1
    prm.group = TwoRanks()
    return prm


@pytest.mark.parametrize("update", ["before", "after"])
def test_responses_are_judged_before_or_after_the_prm_learns_from_them(monkeypatch, update):
    tokens = [torch.tensor([10 + row, 1, 2 + row]) for row in range(3)]
    masks = [torch.tensor([False, True])] * 3
    correct = torch.tensor([True, False, True])
    prm = online_prm(monkeypatch, update)
    ratios, figures = prm.judge(tokens, masks, correct, number=0)
    offset = 100.0 if update == "before" else 0.0
    assert [row.tolist() for row in ratios] == [[2.0 + offset], [3.0 + offset], [4.0 + offset]]
    # Two optimizer steps, of two responses and of one; each response once, with its own outcome.
    assert figures["online_prm/loss"].tolist() == [1.5] * 3
    assert sorted(row for batch in prm.group.batches for row in batch) == [(10, True), (11, False), (12, True)]
    assert figures["online_prm/accuracy"].tolist() == [1.0, 0.0, 1.0]


def test_the_order_of_its_updates_follows_from_seed_and_rollout(monkeypatch):
    def order(number):
        prm = online_prm(monkeypatch, "after")
        tokens = [torch.tensor([row, 1]) for row in range(8)]
        prm.judge(tokens, [torch.tensor([True])] * 8, torch.ones(8, dtype=torch.bool), number)
        return prm.group.batches

    assert order(1) == order(1) != order(2)
