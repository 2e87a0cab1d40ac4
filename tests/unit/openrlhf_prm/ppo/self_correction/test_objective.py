"""SCoRe's objective on numbers a reader can check. Two attempts, a question with three episodes, unless said."""

import pytest
import torch

from openrlhf_prm.ppo.self_correction.objective import (
    attempt_advantages,
    attempt_of_positions,
    improvement,
    kl_coefficients,
)

FIRST, SECOND = [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]


def advantages(*rows, stage=2, alpha=10.0, group_size=3, **more):
    outcomes = torch.tensor(rows)
    return attempt_advantages(outcomes, outcomes, group_size, stage=stage, alpha=alpha, **more)


def close(got, *rows):
    assert got.tolist() == [pytest.approx(row, abs=1e-5) for row in rows]


def test_without_a_bonus_each_attempt_has_its_own_leave_one_out_baseline():
    close(advantages(FIRST, SECOND, alpha=0.0), [1.0, -0.5, -0.5], [0.5, 0.5, -1.0])


def test_the_bonus_is_the_second_attempts_alone():
    # Gains are 0, 1, 0: less the others' mean -0.5, 1, -0.5, times alpha.
    close(advantages(FIRST, SECOND), [1.0, -0.5, -0.5], [0.5 - 5, 0.5 + 10, -1.0 - 5])


def test_a_bonus_is_alpha_for_a_win_minus_alpha_for_a_loss_and_nothing_for_the_same():
    outcomes = torch.tensor([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0]])
    assert improvement(outcomes).tolist() == [[0, 0, 0, 0], [1, -1, 0, 0]]


def test_more_attempts_telescope():
    outcomes = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert improvement(outcomes).sum(0).tolist() == (outcomes[-1] - outcomes[0]).tolist() == [1, 0]
    # Only the attempt that changed something, and the one that took it back, are paid for it.
    assert improvement(outcomes)[:, 0].tolist() == [0, 1, -1, 1]


def test_stage_1_pays_the_first_attempt_nothing_and_the_others_without_a_bonus():
    close(advantages(FIRST, SECOND, stage=1), [0.0] * 3, [0.5, 0.5, -1.0])
    for other in ([0.0, 0.0, 0.0], [0.0, 1.0, 1.0]):
        assert torch.equal(advantages(other, SECOND, stage=1), advantages(FIRST, SECOND, stage=1))


def test_what_the_second_attempt_is_paid_moves_no_first_attempt():
    assert torch.equal(advantages(FIRST, SECOND)[0], advantages(FIRST, [0.0, 0.0, 1.0])[0])


def test_bounds_of_rewards_leave_the_bonus_alone():
    close(advantages(FIRST, SECOND, clip=(-0.75, 0.75)), [0.75, -0.5, -0.5], [-4.5, 10.5, -0.75 - 5])


def test_groups_that_agree_get_nothing_whatever_floats_can_hold():
    assert advantages([0.1 * 3] * 3, [0.2] * 3).abs().max() == 0


def test_questions_are_compared_apart():
    got = advantages([1.0, 0.0, 5.0, 5.0], [1.0, 0.0, 5.0, 5.0], group_size=2, alpha=3.0)
    close(got, [1.0, -1.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0])


def test_kl_coefficients_of_both_stages():
    assert kl_coefficients(3, stage=1, beta1=0.01, beta2=0.25) == [0.25, 0.0, 0.0]
    assert kl_coefficients(3, stage=2, beta1=0.01, beta2=0.25) == [0.01] * 3
    assert kl_coefficients(1, stage=2, beta1=0.01, beta2=0.25) == [0.01]


def test_positions_belong_to_the_attempt_they_end_in():
    #                     prompt  first    between  second padding
    mask = torch.tensor([0, 0, 1, 1, 1, 0, 0, 1, 1, 0])
    assert attempt_of_positions(mask, (3, 5)).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert attempt_of_positions(mask, (0, 5)).tolist() == [1] * 10, "a first attempt without tokens"
    assert attempt_of_positions(mask, (5, 5)).tolist() == [0] * 9 + [1], "a second one without"
    assert attempt_of_positions(mask, (5,)).tolist() == [0] * 10
