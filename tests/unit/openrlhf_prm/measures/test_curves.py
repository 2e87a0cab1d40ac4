"""Best-of-k and votes over subsets of the samples: hand-worked numbers, and brute force over all subsets."""

from itertools import combinations

import pytest

from openrlhf_prm.measures import choices as metrics
from openrlhf_prm.measures.curves import best_of_k, powers_of_two, vote_of_k

SCORES = [0.2, 0.9, 0.9, None, 0.5]
CORRECT = [True, False, True, False, True]
ANSWERS = ["7", "8", "7.0", None, "7"]


def test_powers_of_two():
    assert powers_of_two(1) == [1] and powers_of_two(8) == [1, 2, 4, 8] and powers_of_two(6) == [1, 2, 4, 6]


def test_best_of_two_by_hand():
    # Pairs of (0.9 wrong, 0.5 right, 0.1 wrong): the best is wrong, wrong, right.
    assert best_of_k([0.9, 0.5, 0.1], [False, True, False], 2) == pytest.approx(1 / 3)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_best_of_k_is_the_mean_over_all_subsets(k):
    picks = list(combinations(range(5), k))
    brute = sum(metrics.best_of_n([SCORES[i] for i in p], [CORRECT[i] for i in p]) for p in picks) / len(picks)
    assert best_of_k(SCORES, CORRECT, k) == pytest.approx(brute)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("weights", [SCORES, [1.0] * 5, [None] * 5])
def test_vote_of_k_is_the_mean_over_all_subsets(k, weights):
    picks = list(combinations(range(5), k))

    def vote(p):
        chosen = [[each[i] for i in p] for each in (ANSWERS, weights, CORRECT)]
        return metrics.weighted_vote(*chosen)

    assert vote_of_k(ANSWERS, weights, CORRECT, k) == pytest.approx(sum(map(vote, picks)) / len(picks))


def test_random_subsets_come_close():
    answers = ["7", "8"] * 8
    correct = [True, False] * 8
    assert vote_of_k(answers, [1.0] * 16, correct, 4, draws=4000) == pytest.approx(0.5, abs=0.03)
    assert vote_of_k(answers, [0.9, 0.1] * 8, correct, 8) > 0.99
    assert vote_of_k(answers, [1.0] * 16, correct, 4, seed=1) == vote_of_k(answers, [1.0] * 16, correct, 4, seed=1)


def test_degenerate_votes_and_sizes():
    assert vote_of_k([None, None], [1.0, 1.0], [False, False], 1) == 0.0
    assert best_of_k([None, None], [True, False], 1) == 0.5
    for k in (0, 3):
        with pytest.raises(ValueError, match="1 <= k"):
            best_of_k([0.1, 0.2], [True, False], k)
        with pytest.raises(ValueError, match="1 <= k"):
            vote_of_k(["7", "8"], [0.1, 0.2], [True, False], k)
    with pytest.raises(ValueError, match="aligned"):
        vote_of_k(["7"], [0.1], [True, False], 1)
