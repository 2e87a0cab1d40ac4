"""The reward for distinct correct reasoning, on texts a reader can compare."""

import pytest

from openrlhf_prm.ppo.diversity import DiversityOptions, distinct_shares

OPTIONS = DiversityOptions(coef=1.0, ngram=2, threshold=0.5)


def test_copies_share_one_reward_and_another_way_has_its_own():
    responses = ["add two and two", "Add two,  and two.", "count up from two", "add two and two"]
    assert distinct_shares(responses, [True, True, True, False], 4, OPTIONS) == [0.5, 0.5, 1.0, 0.0]


def test_the_groups_reward_counts_its_ways():
    assert sum(distinct_shares(["a b c"] * 8, [True] * 8, 8, OPTIONS)) == pytest.approx(1.0)
    assert sum(distinct_shares([f"way {n} is {n}" for n in range(8)], [True] * 8, 8, OPTIONS)) == pytest.approx(8.0)


def test_similarity_is_the_share_of_common_ngrams():
    # ab bc cd against ab bc ce: two of four pairs are common.
    alike = distinct_shares(["a b c d", "a b c e"], [True, True], 2, OPTIONS)
    apart = distinct_shares(["a b c d", "a b c e"], [True, True], 2, DiversityOptions(ngram=2, threshold=0.51))
    assert (alike, apart) == ([0.5, 0.5], [1.0, 1.0])


def test_operators_tell_reasoning_apart():
    assert distinct_shares(["2 + 2", "2 * 2"], [True, True], 2, OPTIONS) == [1.0, 1.0]


def test_another_way_to_write_the_answer_is_no_other_reasoning():
    responses = [f"half of one\nThe answer is {answer}." for answer in ("0.5", "$\\frac{1}{2}$", "50\\%")]
    assert distinct_shares(responses, [True] * 3, 3, DiversityOptions(ngram=2, threshold=1.0)) == [1 / 3] * 3
    # The same text with another answer, where a task has several right ones, is another way.
    responses = [f"try all of the numbers in turn\nThe answer is {answer}." for answer in ("4*94-67", "94*4-67", "309")]
    options = DiversityOptions(ngram=1, threshold=0.5)
    assert distinct_shares(responses, [True] * 3, 3, options) == [1 / 3] * 3
    other = [*responses[:2], responses[2].replace("309", "310")]
    assert distinct_shares(other, [True] * 3, 3, options) == [0.5, 0.5, 1.0]


def test_degenerate_groups():
    assert distinct_shares(["a"], [True], 1, OPTIONS) == [1.0]
    assert distinct_shares(["", ""], [True, True], 2, OPTIONS) == [0.5, 0.5]
    assert distinct_shares(["a", "a"], [False, False], 2, OPTIONS) == [0.0, 0.0]
    assert distinct_shares(["a", "a"], [True, True], 1, OPTIONS) == [1.0, 1.0], "groups do not mix"


@pytest.mark.parametrize("options", [{"ngram": 0}, {"threshold": 0.0}, {"threshold": 1.5}])
def test_options_out_of_range_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} "):
        DiversityOptions(**options)
