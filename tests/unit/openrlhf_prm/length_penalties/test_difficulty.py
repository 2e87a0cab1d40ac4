"""Penalties that look at how hard a question is: by hand, and against the papers' formulas written out once more."""

import random

import pytest
import torch

from openrlhf_prm.length_penalties.alp import ALP
from openrlhf_prm.length_penalties.gfpo import GFPO, GFPODifficulty, quantile
from openrlhf_prm.length_penalties.laser import Laser, LaserD, LaserDE, repeats_itself
from openrlhf_prm.length_penalties.penalty import LengthBatch
from openrlhf_prm.length_penalties.truncation import Truncation, TruncationDifficulty


def batch(lengths, correct, group_size=None, **extra):
    return LengthBatch(
        lengths=torch.tensor(lengths),
        correct=torch.tensor(correct),
        group_size=group_size or len(lengths),
        **{"state": {}} | extra,
    )


def drawn(seed, groups=5, size=8, longest=1200):
    draw = random.Random(seed)
    lengths = [draw.randrange(longest) for _ in range(groups * size)]
    ease = [draw.choice([0.0, 0.2, 0.5, 0.8, 1.0]) for _ in range(groups)]
    return lengths, [draw.random() < ease[place // size] for place in range(groups * size)]


def test_alp_charges_easy_questions_most():
    easy, hard = [True, True, True, False], [False] * 4
    penalties = ALP(max_tokens=100)(batch([100, 50, 0, 100] * 2, [*easy, *hard], 4))
    assert penalties.tolist() == pytest.approx([-0.75, -0.375, 0.0, -0.75, -0.25, -0.125, 0.0, -0.25])
    assert ALP(max_tokens=100)(batch([50, 50], [True, False], 1)).tolist() == pytest.approx([-0.5, -0.5])


@pytest.mark.parametrize("seed", range(3))
def test_alp_is_the_papers_formula(seed):
    lengths, correct = drawn(seed)
    expected = []
    for place, length in enumerate(lengths):
        group = correct[place // 8 * 8 : place // 8 * 8 + 8]
        expected.append(-max(sum(group) / 8, 1 / 8) * length / 1000)
    assert ALP(max_tokens=1000)(batch(lengths, correct, 8)).tolist() == pytest.approx(expected, abs=1e-6)


def test_laser_pays_right_responses_up_to_the_target():
    penalties = Laser(bonus=0.5, target=100)(batch([100, 101, 50, 0], [True, True, False, True]))
    assert penalties.tolist() == [0.5, 0.0, 0.0, 0.5]


LEVELS = LaserD(shortest=20, interval=10, max_tokens=60)  # 20, 30, 40, 50; else 60
EASY, MEDIUM, HARD = [True] * 6, [True, True, False, False, False, False], [False] * 6


def targets(state):
    """Of easy, medium and hard questions, from what right responses get."""
    got = []
    for verdicts in (EASY, MEDIUM, [True, *HARD[1:]]):
        bonus = {
            length: LEVELS(batch([length] * 6, verdicts, state={key: list(kept) for key, kept in state.items()}))[0]
            for length in (20, 30, 40, 50, 60)
        }
        got.append(max(length for length, paid in bonus.items() if paid))
    return got


def test_laser_d_gives_each_level_the_length_at_which_a_right_response_is_expected():
    state = {}
    assert targets({"grid": [20, 30, 40, 50], "rollouts": []}) == [60, 60, 60], "nothing is known"
    lengths = [60, 60, 60, 60, 60, 25] + [35, 60, 35, 60, 60, 60] + [10, 20, 30, 40, 41, 42]
    first = LEVELS(batch(lengths, [*EASY, *MEDIUM, *HARD], 6, state=state))
    assert first.tolist() == [0.5] * 6 + [0.5, 0.5] + [0.0] * 10, "its own lengths do not count"
    # Easy: of 4 right ones 4/6 are expected within 30 tokens, less than one. Medium: 2/3 within 40. Hard: one at 50.
    assert targets(state) == [60, 60, 50]
    LEVELS(batch([25] * 6 + [35] * 6, [*EASY, *MEDIUM], 6, state=state))
    # Easy: 7 of 12 at 30, times 4. Medium: 8 of 12 at 40, times 2.
    assert targets(state) == [30, 40, 50]


def test_laser_d_forgets_old_rollouts_and_other_grids():
    penalty, state = LaserD(shortest=20, interval=10, max_tokens=60, window=1), {}
    penalty(batch([25] * 6, EASY, state=state))
    assert penalty(batch([30, 31] * 3, EASY, state=state)).tolist() == [0.5, 0.0] * 3
    # Of 30 and 31 tokens three are up to 30, times 4: the target is 30 still; of 40 and 41 it is 40.
    assert penalty(batch([40, 41] * 3, EASY, state=state)).tolist() == [0.0] * 6
    assert penalty(batch([40, 41] * 3, EASY, state=state)).tolist() == [0.5, 0.0] * 3
    other = LaserD(shortest=20, interval=20, max_tokens=60, window=1)
    assert other(batch([60] * 6, EASY, state=state)).tolist() == [0.5] * 6
    assert state["grid"] == [20, 40] and len(state["rollouts"]) == 1


def authors_targets(rollouts, size, grid, longest):
    """Their `_choose_target_length` with `round_method` floor, on shares of responses up to each length."""
    chosen = {}
    for level, share in {"easy": 2 / 3, "medium": 1 / 3, "hard": None}.items():
        lengths = [length for of_level in rollouts for length in of_level[level]]
        right = 1 if share is None else int(size * share)
        chosen[level] = longest
        for target in grid:
            coverage = sum(length <= target for length in lengths) / len(lengths) if lengths else 0.0
            if int(coverage * right) >= 1 and target < chosen[level]:
                chosen[level] = target
    return chosen


@pytest.mark.parametrize("kind", [LaserD, LaserDE])
@pytest.mark.parametrize("seed", range(3))
def test_laser_d_is_the_authors_reward(kind, seed):
    penalty, state, seen = kind(shortest=256, interval=64, max_tokens=1024), {}, []
    for rollout in range(4):
        lengths, correct = drawn(10 * seed + rollout, longest=1024)
        tokens = [[place % 7 for place in range(n)] if n % 2 else list(range(n)) for n in lengths]
        given = batch(lengths, correct, 8, state=state, token_ids=tokens)
        limits = authors_targets(seen, 8, penalty_grid(), 1024)
        expected, levels = [], {"easy": [], "medium": [], "hard": []}
        for place, length in enumerate(lengths):
            accuracy = sum(correct[place // 8 * 8 : place // 8 * 8 + 8]) / 8
            level = "easy" if accuracy >= 2 / 3 else "medium" if accuracy >= 1 / 3 else "hard"
            levels[level].append(length)
            short = length <= limits[level]
            explores = kind is LaserDE and not correct[place] and not short and length % 2 == 0
            expected.append(0.5 if (correct[place] and short) or explores else 0.0)
        assert penalty(given).tolist() == expected
        seen.append(levels)


def penalty_grid():
    return list(range(256, 1024, 64))


def test_laser_de_pays_for_going_on_where_the_answer_is_not_found():
    penalty = LaserDE(shortest=20, interval=10, max_tokens=40)
    tokens = [list(range(50)), [1, 2, 3, 4, 5] * 10, list(range(30)), list(range(50))]
    penalties = penalty(batch([50, 50, 30, 50], [False, False, False, True], token_ids=tokens))
    assert penalties.tolist() == [0.5, 0.0, 0.0, 0.0]


def test_what_repeats_itself():
    assert not repeats_itself([]) and not repeats_itself([5] * 8) and repeats_itself([5] * 9)
    assert not repeats_itself(list(range(300)))
    assert repeats_itself([*range(10), 50, 51, 60, 50, 51]), "a bigram twice, close together"
    assert not repeats_itself([50, 51, *range(10), 50, 51]), "as long as that, but far apart"
    assert not repeats_itself([7, 8, 9, *range(20, 50), 7, 8, 9]), "a trigram twice, far apart"
    assert repeats_itself([7, 8, 9, 10, 11, 12, *range(20, 50), 7, 8, 9, 10, 11, 12]), "six tokens twice, anywhere"
    far = [*range(1000, 1100), 1, 2, 3, 4, *range(2000, 2020), 1, 2, 3, 4, *range(3000, 3100)]
    assert not repeats_itself(far) and repeats_itself([*far[:150], 1, 2, 3, 4, *far[150:]])


def test_truncation_makes_long_right_responses_wrong():
    rewards = Truncation(max_tokens=10)(batch([10, 11, 11], [True, True, False])) + torch.tensor([1.0, 1.0, 0.0])
    assert rewards.tolist() == [1.0, 0.0, 0.0]


def test_gfpo_keeps_the_shortest():
    given = batch([30, 10, 20, 10, 9, 8, 7, 6], [True, False, True, True, True, False, True, False], 4)
    assert GFPO(keep=0.5).kept(given).tolist() == [False, True, False, True, False, False, True, True]
    by_reward = GFPO(keep=0.5, metric="efficiency").kept(given)
    assert by_reward.tolist() == [False, False, True, True, True, False, True, False]
    assert GFPO()(given).tolist() == [0.0] * 8


def test_gfpo_in_degenerate_groups():
    assert GFPO(keep=0.01).kept(batch([3, 3, 3], [False] * 3)).tolist() == [True, False, False], "at least one"
    assert GFPO(metric="efficiency").kept(batch([0, 5], [False, True])).tolist() == [False, True]
    assert GFPO().kept(batch([5, 0], [True, False])).tolist() == [False, True]
    assert GFPO().kept(batch([5], [True])).tolist() == [True]
    assert GFPO().conflict(100, 1).startswith("keep 0.5 drops nothing") and GFPO().conflict(100, 2) is None


def test_truncation_is_tighter_on_easy_questions():
    penalty = TruncationDifficulty(max_tokens=20, easy_max_tokens=10, easy_from=0.5)
    lengths, easy, hard = [10, 11, 21, 5], [True, True, True, False], [False, True, True, False]
    # Of the easy one's four two are right within 20 tokens; of the hard one's one.
    assert penalty(batch(lengths * 2, [*easy, *hard], 4)).tolist() == [0, -1, -1, 0, 0, 0, -1, 0]
    assert penalty(batch([11, 21], [True, True], 1)).tolist() == [-1, -1], "easy, and hard"
    assert penalty(batch([0, 9], [False, False])).tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_truncation_by_difficulty_is_the_papers_rule(seed):
    """Two levels with the threshold 0.5 and 2000 and 4000 tokens; responses beyond that were cut, so they are wrong."""
    lengths, correct = drawn(seed, longest=5000)
    penalty = TruncationDifficulty(max_tokens=4000, easy_max_tokens=2000)
    expected = []
    for place, length in enumerate(lengths):
        group = range(place // 8 * 8, place // 8 * 8 + 8)
        answers = [correct[other] and lengths[other] <= 4000 for other in group]
        limit = 2000 if sum(answers) / 8 >= 0.5 else 4000
        expected.append(1.0 if correct[place] and length <= limit else 0.0)
    rewards = penalty(batch(lengths, correct, 8)) + torch.tensor(correct).float()
    assert rewards.tolist() == expected and 0 < sum(expected) < sum(correct)


def test_quantiles_of_counts():
    assert quantile([1, 1, 1, 1], 0.5) == 1.5 and quantile([1, 1, 1, 1], 0.75) == 2.25
    assert quantile([0, 0, 3], 0.75) == 2.0 and quantile([1], 0.5) == 0.0
    draw = random.Random(0)
    for _ in range(20):
        numbers = [draw.randrange(6) for _ in range(draw.randrange(1, 30))]
        counts = [numbers.count(number) for number in range(6)]
        expected = torch.tensor(numbers, dtype=torch.float64).quantile(torch.tensor([0.5, 0.75], dtype=torch.float64))
        assert [quantile(counts, share) for share in (0.5, 0.75)] == pytest.approx(expected.tolist())


def test_gfpo_keeps_more_of_hard_questions():
    penalty, state = GFPODifficulty(keep=1.0, keep_medium=0.5, keep_easy=0.25, ready_after=1), {}
    lengths = [1, 2, 3, 4] * 4
    correct = [place % 4 < place // 4 for place in range(16)]  # 0, 1, 2, 3 of 4 right
    assert penalty.kept(batch(lengths, correct, 4, state=state)).all(), "not ready"
    # Median 1.5, third quartile 2.25 of what is now seen twice each.
    assert penalty.kept(batch(lengths, correct, 4, state=state)).reshape(4, 4).sum(-1).tolist() == [4, 4, 2, 1]
    assert penalty.kept(batch(lengths, correct, 4, state=state))[8:12].tolist() == [True, True, False, False]
    assert state == {"questions": [3, 3, 3, 3, 0], "rollouts": 3}
    assert not penalty(batch(lengths, correct, 4, state=state)).any() and state["rollouts"] == 3
    penalty.kept(batch([1, 2], [True, False], state=state))
    assert state == {"questions": [0, 1, 0], "rollouts": 1}, "another number of samples"


@pytest.mark.parametrize("seed", range(3))
def test_gfpo_by_difficulty_is_the_papers_algorithm(seed):
    penalty, state, seen = GFPODifficulty(ready_after=2), {}, []
    for rollout in range(5):
        lengths, correct = drawn(10 * seed + rollout, groups=9, size=16)
        means = [sum(correct[start : start + 16]) / 16 for start in range(0, 144, 16)]
        seen += means
        median, upper = torch.tensor(seen).quantile(torch.tensor([0.5, 0.75])).tolist()
        expected = []
        for group, mean in enumerate(means):
            k = 8 if rollout < 2 or mean < median else 6 if mean < upper else 4
            own = lengths[16 * group : 16 * group + 16]
            best = sorted(range(16), key=own.__getitem__)[:k]
            expected += [place in best for place in range(16)]
        assert penalty.kept(batch(lengths, correct, 16, state=state)).tolist() == expected


def test_gfpo_by_difficulty_in_degenerate_groups():
    every = GFPODifficulty(ready_after=0)
    assert every.kept(batch([5], [True])).tolist() == [True], "a group of one"
    assert every.kept(batch([4, 3, 2, 1] * 2, [False] * 8, 4)).sum() == 2, "all questions agree: all are easy"
    assert every.conflict(100, 16) is None
    assert every.conflict(100, 2).startswith("kind gfpo_difficulty keeps 1 of --rollout.n_samples_per_prompt 2")
