"""Choosing among responses: hand-worked numbers, brute force over all subsets, degenerate cases."""

import random
from fractions import Fraction
from itertools import combinations

import pytest

from openrlhf_prm.measures.choices import (
    best_of_k,
    best_of_n,
    majority_vote,
    pass_at_k,
    powers_of_two,
    vote_of_k,
    weighted_vote,
)
from openrlhf_prm.measures.intervals import mean

SCORES = [0.2, 0.9, 0.9, None, 0.5]
CORRECT = [True, False, True, False, True]
ANSWERS = ["7", "8", "7", None, "7"]


def test_pass_at_k():
    correct = [True, False, False, True]
    assert pass_at_k(correct, 1) == 0.5
    assert pass_at_k(correct, 2) == pytest.approx(1 - 1 / 6)  # one of the six pairs is wrong twice
    assert pass_at_k(correct, 3) == pass_at_k(correct, 4) == 1.0
    assert pass_at_k([False] * 5, 5) == 0.0


@pytest.mark.parametrize(("n", "k"), [(3, 0), (3, 4)])
def test_pass_at_k_outside_its_range(n, k):
    with pytest.raises(ValueError, match="1 <= k"):
        pass_at_k([True] * n, k)


def test_pass_at_k_of_no_response():
    with pytest.raises(ValueError, match="needs at least one response"):
        pass_at_k([], 1)


def test_best_of_n():
    assert best_of_n([0.1, 0.9, 0.5], [True, False, True]) == 0.0
    assert best_of_n([0.1, 0.9, 0.9], [True, False, True]) == 0.5  # a tie of a wrong and a right one
    assert best_of_n([0.5, 0.5, 0.5, 0.5], [True, False, False, False]) == 0.25  # all equal: the mean
    assert best_of_n([None, 0.0], [True, False]) == 0.0  # no step never beats a step
    assert best_of_n([None, None], [True, False]) == 0.5
    with pytest.raises(ValueError, match="at least one response"):
        best_of_n([], [])
    with pytest.raises(ValueError, match="aligned"):
        best_of_n([0.5], [True, False])


def test_weighted_vote():
    # 7 has the weight 0.2 + 0.3, 8 has 0.6: the vote goes to 8, the majority to 7.
    answers, correct = ["7", "7", "8"], [True, True, False]
    assert weighted_vote(answers, [0.2, 0.3, 0.6], correct) == 0.0
    assert majority_vote(answers, correct) == 1.0
    assert weighted_vote(["7", "8"], [0.5, 0.5], [True, False]) == 0.5
    assert weighted_vote(["7", "8"], [0.0, 0.0], [True, False]) == 0.5


def test_a_response_without_answer_votes_for_nothing():
    assert majority_vote([None, None, "8"], [False, False, True]) == 1.0
    assert majority_vote([None, None], [False, False]) == 0.0
    assert weighted_vote(["7", "8"], [None, 0.1], [True, False]) == 0.0  # not scored: weight 0


def test_a_response_that_was_cut_is_never_chosen_where_another_is_there():
    cut = [False, True, True]
    assert best_of_n([0.9, 0.2, 0.1], [True, False, False], cut) == 0.0
    assert best_of_n([0.9, 0.2, 0.1], [True, False, False], [False] * 3) == 1.0
    # Of the pairs only (0.2, 0.1) has no cut one; with the first one, the other is chosen.
    assert best_of_k([0.9, 0.2, 0.1], [False, True, False], 2, cut) == pytest.approx(2 / 3)


def test_sums_of_votes_that_differ_by_rounding_are_equal():
    # 0.1 + 0.2 for 1 and 0.3 for 2: the sums differ in the last bit alone.
    assert 0.1 + 0.2 != 0.3
    vote = (["1", "1", "2"], [0.1, 0.2, 0.3], [True, True, False])
    assert weighted_vote(*vote) == vote_of_k(*vote, 3) == 0.5
    # However small the weights are, as products of many step scores: the same tie, and no tie.
    assert weighted_vote(["1", "1", "2"], [1e-17, 2e-17, 3e-17], [True, True, False]) == 0.5
    assert weighted_vote(["1", "2"], [2e-17, 1e-17], [True, False]) == 1.0
    # Votes against leave a rounding error as large as the weights were, not as what is left of them.
    assert weighted_vote(["1", "1", "1", "2"], [0.7, 0.1, -0.8, 0.0], [True, True, True, False]) == 0.5


def exact_vote(answers, weights, correct):
    """The vote on sums of fractions, in which tenths are tenths."""
    sums: dict[str, Fraction] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            sums[answer] = sums.get(answer, Fraction(0)) + Fraction(weight or 0, 10)
    winners = [answer for answer, total in sums.items() if total == max(sums.values())]
    shares = [mean([float(r) for a, r in zip(answers, correct, strict=True) if a == winner]) for winner in winners]
    return mean(shares) or 0.0


def test_votes_are_counted_exactly():
    generator = random.Random(0)
    for _ in range(1000):
        n = generator.randint(1, 8)
        answers = generator.choices(["1", "2", None], [4, 4, 1], k=n)
        tenths = generator.choices([1, 2, 3, 4, 5, 6, None], k=n)  # few values, so that many sums are equal
        correct = generator.choices([True, False], k=n)
        weights = [None if weight is None else weight / 10 for weight in tenths]
        expected = pytest.approx(exact_vote(answers, tenths, correct))
        assert weighted_vote(answers, weights, correct) == expected
        assert vote_of_k(answers, weights, correct, n) == expected


def test_powers_of_two():
    assert powers_of_two(1) == [1] and powers_of_two(8) == [1, 2, 4, 8] and powers_of_two(6) == [1, 2, 4, 6]


def test_best_of_two_by_hand():
    # Pairs of (0.9 wrong, 0.5 right, 0.1 wrong): the best is wrong, wrong, right.
    assert best_of_k([0.9, 0.5, 0.1], [False, True, False], 2) == pytest.approx(1 / 3)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_best_of_k_is_the_mean_over_all_subsets(k):
    picks = list(combinations(range(5), k))
    brute = sum(best_of_n([SCORES[i] for i in p], [CORRECT[i] for i in p]) for p in picks) / len(picks)
    assert best_of_k(SCORES, CORRECT, k) == pytest.approx(brute)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("weights", [SCORES, [1.0] * 5, [None] * 5])
def test_vote_of_k_is_the_mean_over_all_subsets(k, weights):
    picks = list(combinations(range(5), k))

    def vote(p):
        return weighted_vote(*([column[i] for i in p] for column in (ANSWERS, weights, CORRECT)))

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
