"""A rollout of episodes seen as one of attempts."""

import math

import pytest
import torch
from mixed_rollouts import rollout

from openrlhf_prm.ppo.rollout.records import StepRecord
from openrlhf_prm.ppo.self_correction.records import Attempts, in_attempts, record_of


def episodes():
    """Two episodes of two attempts, of 3 + 1 and of 1 + 3 tokens, with steps at 2, 3, 4 and 1, 4."""
    records = [
        StepRecord((2, 3, 4), (0.1, 0.2, 0.3), 0.0, 0.1, turn_ends=(3, 4), text_ends=(1, 3, 4)),
        StepRecord((1, 4), (0.4, math.nan), 0.0, 0.1, turn_ends=(1, 4), text_ends=(1, 4)),
    ]
    seen = rollout(
        outcomes=torch.tensor([1.0, 0.0]),
        correct=torch.tensor([True, False]),
        lengths=torch.tensor([4.0, 4.0]),
        truncated=torch.tensor([False, True]),
        prompts=["p", "p"],
        responses=None,
        token_ids=[[1, 2, 3, 4], [5, 6, 7, 8]],
        records=records,
    )
    attempts = [
        Attempts((3, 4), (0.0, 1.0), (0.0, 1.0), (True, False)),
        Attempts((1, 4), (1.0, 0.0), (1.0, 0.0), (False, True)),
    ]
    return seen, attempts


def test_all_first_attempts_stand_before_all_second_ones():
    seen, attempts = episodes()
    got = in_attempts(seen, attempts, torch.tensor([[False, True], [True, False]]))
    assert got.outcomes.tolist() == [0, 1, 1, 0] and got.correct.tolist() == [False, True, True, False]
    assert got.token_ids == [[1, 2, 3], [5], [4], [6, 7, 8]] and got.lengths.tolist() == [3, 1, 1, 3]
    assert got.truncated.tolist() == [True, False, False, True] and got.prompts == ["p"] * 4
    assert [record.ends for record in got.records] == [(2, 3), (1,), (1,), (3,)]
    assert [record.scores for record in got.records[:3]] == [(0.1, 0.2), (0.4,), (0.3,)]
    assert [record.text_ends for record in got.records] == [(1, 3), (1,), (1,), (3,)]
    assert [record.turn_ends for record in got.records] == [(3,), (1,), (1,), (3,)]
    assert got.group_size == 2


def test_without_steps_there_are_no_records():
    seen, attempts = episodes()
    bare = in_attempts(rollout(token_ids=seen.token_ids, records=[]), attempts, torch.zeros(2, 2, dtype=torch.bool))
    assert bare.records == []


def test_an_attempt_without_tokens_has_neither_step_nor_turn():
    seen, _ = episodes()
    empty = record_of(seen.records[0], 0, 0)
    assert (empty.ends, empty.scores, empty.turn_ends, empty.text_ends, empty.tokens) == ((), (), (), (), 0)
    assert record_of(StepRecord((2, 4), None, 0.0, 0.0), 2, 4).scores is None


def test_attempts_that_are_not_the_actions_are_an_error():
    seen, attempts = episodes()
    with pytest.raises(ValueError, match="got 3 tokens, expected 4"):
        in_attempts(seen, [attempts[0], Attempts((1, 3), (0.0,) * 2, (0.0,) * 2, (False,) * 2)], torch.zeros(2, 2))
