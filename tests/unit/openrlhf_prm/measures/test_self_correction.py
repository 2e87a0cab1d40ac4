"""Changes between attempts, by hand; the edit ratio against a plain table of common subsequences."""

import random

import pytest

from openrlhf_prm.measures.self_correction import edit_histogram, edit_ratio, right_to_wrong, wrong_to_right


def test_the_gain_is_what_was_won_less_what_was_lost():
    first, last = [False, False, True, True, True], [True, False, False, False, True]
    assert wrong_to_right(first, last) == [1, 0, 0, 0, 0]
    assert right_to_wrong(first, last) == [0, 0, 1, 1, 0]
    gained = sum(wrong_to_right(first, last)) - sum(right_to_wrong(first, last))
    assert sum(last) - sum(first) == gained == -1


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        ("", "", 0.0),
        ("abc", "abc", 0.0),
        ("abc", "", 1.0),
        ("abc", "xyz", 1.0),
        ("abcd", "abxd", 0.25),  # abd of four and four: two edits of eight
        ("a", "aaa", 0.5),
    ],
)
def test_edit_ratio_by_hand(one, other, ratio):
    assert edit_ratio(one, other) == edit_ratio(other, one) == pytest.approx(ratio)


def common(one, other):
    rows = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            rows[i + 1][j + 1] = rows[i][j] + 1 if a == b else max(rows[i][j + 1], rows[i + 1][j])
    return rows[-1][-1]


def test_edit_ratio_is_that_of_the_longest_common_subsequence():
    rng = random.Random(0)
    for _ in range(200):
        one, other = ([rng.randrange(4) for _ in range(rng.randrange(1, 90))] for _ in range(2))
        assert edit_ratio(one, other) == pytest.approx(1 - 2 * common(one, other) / (len(one) + len(other)))


def test_every_ratio_has_one_bin():
    assert edit_histogram(0.0) == [1, 0, 0, 0, 0]
    assert edit_histogram(0.2) == [0, 1, 0, 0, 0]
    assert edit_histogram(0.99) == edit_histogram(1.0) == [0, 0, 0, 0, 1]
