"""Step scores scaled by a rollout's outcomes to values under the policy of the moment."""

import itertools

import pytest
import torch

from openrlhf_prm.rewards.recalibration import recalibrated

STEPS = 5
# Every way in which five steps can first go wrong (5: not at all), as often as steps that are right 0.9 of the time
# would: 4000 responses, of which 0.9^5 are right.
COUNTS = [round(4000 * 0.9**first * (0.1 if first < STEPS else 1)) for first in range(STEPS + 1)]
FIRST_WRONG = list(itertools.chain.from_iterable([first] * count for first, count in enumerate(COUNTS)))
CORRECT = torch.tensor([first == STEPS for first in FIRST_WRONG])


def scores(right: float, wrong: float = 0.0) -> list[torch.Tensor]:
    """What a PRM says of a policy whose steps are right with chance `right`; `wrong` after a mistake."""
    return [
        torch.tensor([right ** (STEPS - 1 - k) if k < first else wrong for k in range(STEPS)]) for first in FIRST_WRONG
    ]


def test_values_of_a_worse_policy_become_those_of_the_better_one():
    values = recalibrated(scores(0.75), CORRECT)
    truth = [0.9 ** (STEPS - 1 - k) for k in range(STEPS - 1)]
    assert values[-1][:-1].tolist() == pytest.approx(truth, abs=0.03)
    # Of the first response every step is wrong.
    assert values[0].max() < 0.01


def test_right_or_wrong_so_far_becomes_a_value():
    values = recalibrated(scores(1.0), CORRECT)[-1]
    assert values.unique().numel() == 1  # such a score does not tell how far it is to the end
    assert 0.9**4 < values[0] < 0.9


@pytest.mark.parametrize("told", ["the same of all", "the contrary"])
def test_scores_that_tell_nothing_become_the_accuracy(told):
    given = [torch.full((STEPS,), 0.8)] * len(CORRECT)
    if told == "the contrary":
        given = [torch.full((STEPS,), 0.1 if right else 0.9) for right in CORRECT]
    values = torch.stack(recalibrated(given, CORRECT))
    assert values.std() < 1e-4 and values.mean().item() == pytest.approx(CORRECT.float().mean().item(), abs=0.002)


def test_order_is_kept_and_the_last_step_tells_nothing():
    given = scores(0.75, wrong=0.02)
    values = recalibrated(given, CORRECT)
    assert all(torch.equal(own.argsort(stable=True), new.argsort(stable=True)) for own, new in zip(given, values))
    other = [torch.cat((own[:-1], torch.tensor([0.5]))) for own in given]
    for one, two in zip(values, recalibrated(other, CORRECT), strict=True):
        assert one[:-1].tolist() == pytest.approx(two[:-1].tolist(), abs=1e-6)


@pytest.mark.parametrize("right", [True, False])
def test_one_outcome_and_scores_of_nothing_and_all_stay_finite(right):
    given = [torch.tensor([0.0, 1.0, 0.5]), torch.tensor([1.0, 0.5])]
    for own in recalibrated(given, torch.tensor([right, right])):
        assert torch.isfinite(own).all() and ((own >= 0) & (own <= 1)).all()


def test_nothing_to_learn_from_changes_nothing():
    given = [torch.tensor([0.0]), torch.tensor([0.4])]
    assert recalibrated(given, torch.tensor([True, False])) == given
    assert recalibrated([], torch.tensor([])) == []


def test_a_response_counts_once_however_many_steps_it_has():
    right, wrong = torch.tensor([0.5, 0.5]), torch.full((101,), 0.5)
    values = recalibrated([right, wrong], torch.tensor([True, False]))
    assert values[0][0].item() == pytest.approx(0.5, abs=1e-3)
