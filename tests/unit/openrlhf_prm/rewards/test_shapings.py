"""Reward shapings on numbers a reader can check by hand."""

import math

import pytest
import torch

from openrlhf_prm.rewards import REWARD_SHAPINGS
from openrlhf_prm.rewards.clip import Clip
from openrlhf_prm.rewards.clip_delta import ClipDelta
from openrlhf_prm.rewards.consistency_filter import ConsistencyFilter
from openrlhf_prm.rewards.delta import Delta
from openrlhf_prm.rewards.gate import Gate
from openrlhf_prm.rewards.min_form import MinForm
from openrlhf_prm.rewards.potential import Potential
from openrlhf_prm.rewards.progress import ProverProgress
from openrlhf_prm.rewards.shaping import SCORE_SCALES, ShapingNeed, shape
from openrlhf_prm.rewards.sum_form import SumForm
from openrlhf_prm.rewards.verified_potential import VerifiedPotential


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


def rows(*values):
    return [torch.tensor(row) for row in values]


def returns(rewards):
    return rewards.flip(0).cumsum(0).flip(0)


def test_clip_by_hand():
    assert Clip()(torch.tensor([0.5, -0.25, 0.0])).tolist() == [0.0, -0.25, 0.0]
    assert Clip(eta=0.5)(torch.tensor([0.75, 0.25])).tolist() == [0.0, -0.25]


def test_delta_by_hand():
    rewards = Delta()(torch.tensor([0.5, -0.25, 1.0, 0.25]))
    assert rewards.tolist() == [0.75, -1.25, 1.0, 0.0]
    assert returns(rewards).tolist() == [0.5, -0.25, 1.0, 0.0], "the return of a step is its own score"


def test_delta_pays_no_more_for_repeated_steps():
    short, long = Delta()(torch.tensor([0.5, 0.5])), Delta()(torch.full((9,), 0.5))
    assert short.sum().item() == long.sum().item() == 0.5


def test_clip_delta_by_hand():
    rewards = ClipDelta()(torch.tensor([0.5, -0.25, 1.0]))
    assert rewards.tolist() == [0.25, -0.25, 0.0]
    assert returns(rewards).tolist() == [0.0, -0.25, 0.0]


def test_gate_opens_where_outcomes_agree():
    scores = rows([0.5, -1.0], [0.25])
    shut, opened = [[0.0, 0.0], [0.0]], [MinForm()(row).tolist() for row in scores]

    def gate(*verdicts, **options):
        return [row.tolist() for row in Gate(**options)(scores, torch.tensor(verdicts))]

    assert gate(False, True) == shut and gate(False, False) == gate(True, True) == opened
    assert gate(True, True, open_to="wrong") == gate(True, False, open_to="wrong") == shut
    assert gate(False, False, open_to="wrong") == opened


def test_strict_min_form_returns_the_running_minimum():
    rewards = MinForm(strict=True)(torch.tensor([0.5, -0.5, 0.25, 0.75]))
    assert rewards.tolist() == [0.0, -0.75, -0.5, 0.75]
    assert returns(rewards).tolist() == [-0.5, -0.5, 0.25, 0.75]
    assert MinForm(strict=True)(torch.tensor([0.5])).tolist() == [0.5]
    assert MinForm(strict=True)(torch.empty(0)).tolist() == []


def test_progress_by_hand():
    # Of the others none is right for the first response and all are for the second. Q of the first goes from 0 to
    # 1 - 0.5^2 = 0.75 and 1, a gain of 0.75 and 0.25; that of the second from 1 to 0.
    rewards = ProverProgress(alpha=2.0, prover_samples=2)(rows([0.5, 1.0], [0.0]), torch.tensor([True, False]))
    assert [row.tolist() for row in rewards] == [[2 * 0.5, 2 * 0.25], [-2.0]]
    returns = rewards[0].flip(0).cumsum(0).flip(0)
    assert returns.tolist() == [2 * 0.75, 2 * 0.25], "a step's return is its own gain, whatever follows"


def test_progress_of_one_response_and_of_no_step():
    (alone,) = ProverProgress(alpha=1.0, prover_samples=1)(rows([0.25]), torch.tensor([True]))
    assert alone.tolist() == [-0.75]
    assert [len(row) for row in ProverProgress()(rows([], [0.5]), torch.tensor([True, False]))] == [0, 1]


def test_the_prover_has_a_say_in_the_gradient():
    """The exact gradient of a policy's first choice, good or bad, over all responses of two steps: it is that of the
    prover's values, which with potentials it would not be.
    """
    first, second = 0.5, {"good": 0.4, "bad": 0.1}  # chance of the good choice; of success after each

    def gradient(samples: int) -> float:
        total = 0.0
        for choice, chance in second.items():
            q = first * second["good"] + (1 - first) * second["bad"]
            for right, probability in ((True, chance), (False, 1 - chance)):
                scores = torch.tensor([chance, float(right)])
                # Two responses of which the other one is right with chance q: its share is q in the mean.
                for other, weight in ((True, q), (False, 1 - q)):
                    shaping = ProverProgress(alpha=1.0, prover_samples=samples)
                    rewards = shaping([scores, scores], torch.tensor([right, other]))[0]
                    score = (1 - first) if choice == "good" else -first
                    share = first if choice == "good" else 1 - first
                    total += weight * share * probability * score * float(rewards.sum())
        return total

    assert gradient(1) == pytest.approx(0.25 * 0.3, abs=1e-6)
    assert gradient(4) == pytest.approx(0.25 * (0.9**4 - 0.6**4), abs=1e-6)


def test_progress_of_a_solved_group_without_mistakes_is_nothing():
    rewards = ProverProgress()(rows([1.0, 1.0], [1.0]), torch.tensor([True, True]))
    assert [row.tolist() for row in rewards] == [[0.0, 0.0], [0.0]]


def dropped(scores, correct, keep):
    rewards = ConsistencyFilter(keep=keep)(rows(*([score] for score in scores)), torch.tensor(correct))
    assert all(row is None or row.tolist() == [0.0] for row in rewards), "no PRM in the loss"
    return [index for index, row in enumerate(rewards) if row is None]


def test_filter_drops_the_least_consistent_and_balances():
    # Three right, one wrong, two to drop: the surplus of right ones goes first.
    assert dropped([0.9, 0.1, 0.5, 0.8], [True, True, True, False], 0.5) == [1, 2]
    # Two and two: one of each, the right one with the lowest score and the wrong one with the highest.
    assert dropped([0.9, 0.1, 0.5, 0.8], [True, True, False, False], 0.5) == [1, 3]


def test_filter_in_degenerate_groups():
    assert dropped([0.9, 0.1], [True, True], 0.5) == [1]
    assert dropped([0.9, 0.1], [False, False], 0.5) == [0]
    assert dropped([0.5, 0.5], [True, True], 0.5) == [0]
    assert dropped([0.5], [True], 0.1) == []
    assert dropped([0.9, 0.1, 0.5], [True, False, True], 1.0) == []


def test_filter_drops_responses_with_too_few_or_too_many_steps_first():
    scores = rows([0.9], [0.5, 0.5], [0.1, 0.1], [0.9] * 4, [0.0, 0.0], [])
    correct = torch.tensor([True, True, True, False, False, False])

    def gone(**options):
        kept = ConsistencyFilter(keep=2 / 3, **options)(scores, correct)
        return [index for index, row in enumerate(kept) if row is None]

    # One of each side: the right one with the lowest mean, the wrong one with the highest.
    assert gone() == [2, 3]
    assert gone(min_steps=2) == [0, 5], "one step, and none"
    assert gone(max_steps=3) == [2, 3]
    assert gone(judged="right") == [2, 3] and gone(judged="right", min_steps=2, max_steps=3) == [0, 3]


def test_filter_in_doubt_of_a_response_without_a_score():
    scores = rows([float("nan")], [-0.9], [float("nan")], [-0.9])
    kept = ConsistencyFilter()(scores, torch.tensor([True, True, False, False]))
    assert [row is None for row in kept] == [True, False, False, True]


@pytest.mark.parametrize("right", range(9))
@pytest.mark.parametrize("keep", [0.1, 0.25, 0.5, 0.9, 1.0])
def test_filter_keeps_what_was_asked_for_whatever_the_group(right, keep):
    left_out = dropped([0.1 * index for index in range(8)], [index < right for index in range(8)], keep)
    assert len(left_out) == 8 - max(1, round(8 * keep))


@pytest.mark.parametrize(
    ("shaping", "options"),
    [(ConsistencyFilter, {"keep": 0}), (ProverProgress, {"prover_samples": 0}), (Gate, {"temperature": 0})],
)
def test_options_out_of_range_are_named(shaping, options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} "):
        shaping(**options)


def test_shape_hands_groups_to_the_shapings_that_need_them():
    scores, correct = rows([0.25], [0.5], [0.25], [0.5]), torch.tensor([False, False, True, False])
    assert [row.tolist() for row in shape(SumForm(), scores, correct, 2)] == [[-0.5], [0.0], [-0.5], [0.0]]
    assert [row.tolist() for row in shape(Gate(), scores, correct, 2)] == [[-0.5], [0.0], [0.0], [0.0]]
    progress = shape(ProverProgress(alpha=1.0, prover_samples=1), scores, correct, 2)
    assert [row.tolist() for row in progress] == [[0.25], [0.5], [0.25], [-0.5]], "probabilities, not signed scores"


def apply(shaping, scores):
    (rewards,) = shape(shaping(), [scores], torch.tensor([False]), 1)
    return rewards


SCORED = [shaping for shaping in REWARD_SHAPINGS.values() if ShapingNeed.LOG_RATIOS not in shaping.needs]


@pytest.mark.parametrize("shaping", SCORED)
def test_no_step_and_one_step(shaping):
    assert apply(shaping, torch.empty(0)).shape == (0,)
    assert apply(shaping, torch.tensor([0.5])).shape == (1,)


@pytest.mark.parametrize("shaping", SCORED)
def test_scores_are_not_changed_in_place(shaping):
    scores = torch.tensor([0.5, -0.5])
    apply(shaping, scores)
    assert scores.tolist() == [0.5, -0.5]


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="^temperature must be above 0, got 0.0"):
        MinForm(temperature=0.0)


def test_verified_potential_ends_on_the_outcome():
    scores = [torch.tensor([0.8, 0.9]), torch.tensor([0.8, 0.9]), torch.tensor([0.7]), torch.tensor([])]
    shaped = VerifiedPotential()(scores, torch.tensor([True, False, True, False]))
    assert torch.allclose(shaped[0], torch.tensor([-0.2, 0.2]))
    assert torch.allclose(shaped[1], torch.tensor([-0.2, -0.8]))
    assert torch.allclose(shaped[2], torch.tensor([0.0])) and shaped[3].numel() == 0
    assert scores[0][1] == 0.9  # the scores that are logged stay what the PRM said


# By hand: a wrong response with scores p of 0.75 and 0.25 (signed 0.5 and -0.5), the right one beside it with 1 and 1.
HANDED_OVER = {
    "sum": [0.5, -0.5],
    "clip": [0.0, -0.5],
    "delta": [0.5, 0.0],
    "clip_delta": [0.0, 0.0],
    "potential": [-0.5, -1.0],
    "verified_potential": [-0.25, -0.75],
    # Of the others all are right: Q is 1 before, 1 - 0.25^4 and 1 - 0.75^4 after the steps.
    "progress": [4 * (0.75**4 - 2 * 0.25**4), 4 * (0.25**4 - 0.75**4)],
    "gate": [0.0, 0.0],
    "filter": [0.0, 0.0],
}


@pytest.mark.parametrize("name", [name for name in REWARD_SHAPINGS if name not in ("implicit", "min_form")])
def test_a_shaping_is_handed_the_scores_that_it_declares(name):
    options = {"keep": 1.0} if name == "filter" else {}
    rewards = shape(REWARD_SHAPINGS[name](**options), rows([0.75, 0.25], [1.0, 1.0]), torch.tensor([False, True]), 2)
    assert rewards[0].tolist() == pytest.approx(HANDED_OVER[name])
