"""Rewards of turns and where they stand, by hand."""

import pytest
import torch

from openrlhf_prm.ppo.credit import CreditOptions, at_places, left_of_outcome, turn_rewards
from openrlhf_prm.ppo.own_tokens import has_observations, over_own_tokens
from openrlhf_prm.ppo.rollout.records import StepRecord


def record(ends, turn_ends, rewards) -> StepRecord:
    return StepRecord(ends, None, 0.0, 0.0, turn_ends=turn_ends, turn_rewards=rewards)


def test_a_turns_reward_stands_where_the_turn_ends():
    turns = turn_rewards([record((2, 5, 9), (5, 9), (0.5, 1.0)), record((4,), (4,), (0.25,))], coef=2.0)
    steps = turns.at([torch.tensor([2, 5, 9]), torch.tensor([4])])
    assert [rewards.tolist() for rewards in steps] == [[0.0, 1.0, 2.0], [0.5]]
    tokens = turns.at([torch.arange(1, 10), torch.arange(1, 5)])  # where every token is a place
    assert tokens[0].tolist() == [0, 0, 0, 0, 1.0, 0, 0, 0, 2.0]
    assert turns.total.tolist() == [1.5, 0.25]


def test_nothing_is_paid_without_turns():
    turns = turn_rewards([record((), (), None), record((3,), (3,), None)], coef=1.0)
    assert [rewards.tolist() for rewards in turns.at([torch.tensor([]), torch.tensor([3])])] == [[], [0.0]]
    assert turns.total.tolist() == [0.0, 0.0]
    assert at_places(torch.tensor([]), torch.tensor([], dtype=torch.long), torch.tensor([1, 2])).tolist() == [0, 0]


def test_rounding_is_no_outcome():
    """Three times 0.3 is 0.9000000358 in float32: what is left would be the group's whole deviation."""
    total = turn_rewards([record((1, 2, 3), (1, 2, 3), (0.3, 0.3, 0.3))] * 2, 1.0).total
    assert left_of_outcome(torch.tensor([0.9, 1.9]), total).tolist() == [0.0, pytest.approx(1.0)]


def test_a_cut_response_keeps_what_it_was_paid():
    paid = record((2, 5, 9, 12), (5, 9, 12), (0.5, 1.0, 0.25))
    cut = paid.cut(7)
    assert (cut.ends, cut.turn_ends, cut.turn_rewards) == ((2, 5, 7), (5, 7), (0.5, 1.25))
    assert (paid.cut(5).turn_ends, paid.cut(5).turn_rewards) == ((5,), (1.75,))
    assert paid.cut(12) is paid


def test_defaults_change_nothing():
    assert CreditOptions() == CreditOptions(unit="step", hide_observations=False, turn_rewards=False)
    assert CreditOptions().unread("credit") == {"turn_coef": "--credit.turn_rewards"}


MASK = torch.tensor([[0, 1, 1, 0, 0, 1, 0], [1, 1, 0, 0, 0, 0, 0]])


def test_observations_are_what_stands_between_own_tokens():
    assert has_observations(MASK)
    assert not has_observations(MASK[1:])
    assert not has_observations(torch.tensor([[0, 0, 1, 1, 1, 0]]))
    assert not has_observations(torch.zeros(1, 4, dtype=torch.long))


def test_own_tokens_are_moved_together_and_back():
    seen = []

    def doubled(values, mask):
        seen.append((values.tolist(), mask.tolist()))
        return 2 * values, values + mask

    values = torch.arange(1.0, 15.0).reshape(2, 7)
    twice, _ = over_own_tokens(doubled, [values], MASK)
    packed, mask = seen[0]
    assert packed[0][:3] == [2, 3, 6] and packed[1][:2] == [8, 9]
    assert mask == [[1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]]
    assert twice.tolist() == [[0, 4, 6, 0, 0, 12, 0], [16, 18, 0, 0, 0, 0, 0]]
