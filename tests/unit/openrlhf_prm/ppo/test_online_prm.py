"""How responses are shared among the ranks of an online PRM, and in which order it judges them and learns from them."""

import pytest
import torch

from openrlhf_prm.ppo.response_rows import padded, shares


def test_rows_are_shared_so_that_every_rank_has_as_many_micro_batches():
    assert shares(5, ranks=2, micro_batch=2) == [
        [([0, 2], [1.0, 1.0]), ([4, 0], [1.0, 0.0])],
        [([1, 3], [1.0, 1.0]), ([0, 0], [0.0, 0.0])],
    ]
    assert shares(1, ranks=2, micro_batch=8) == [[([0], [1.0])], [([0], [0.0])]]
    assert shares(3, ranks=1, micro_batch=8) == [[([0, 1, 2], [1.0] * 3)]]


def test_rows_are_padded_on_the_right():
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
        self.called = []

    def async_run_method(self, method, *arguments):
        self.called.append(method)
        return [getattr(self, method)(rank, *arguments) for rank in range(2)]

    def reload_states(self, rank):
        pass

    def offload_states(self, rank):
        pass

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
    # Heavy: the host and DeepSpeed.
    from openrlhf_prm.ppo import online_prm as module

    monkeypatch.setattr(module.ray, "get", lambda refs: refs)
    monkeypatch.setattr(module.ray, "put", lambda value: value)
    prm = object.__new__(module.OnlinePRM)
    prm.update_first, prm.seed, prm.batch_size, prm.ranks = update == "before", 3, 2, 2
    prm.micro_train = prm.micro_judge = 1
    prm.sleeps = False
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


def test_states_are_on_the_gpu_only_while_the_prm_judges_and_learns(monkeypatch):
    prm = online_prm(monkeypatch, "after")
    prm.sleeps = True
    prm.judge([torch.tensor([10, 1])], [torch.tensor([True])], torch.tensor([True]), number=0)
    assert prm.group.called == ["reload_states", "log_ratios", "update", "offload_states"]
