"""When a step is good: worked by hand."""

import pytest

from openrlhf_prm.annotation.adaptive import AdaptiveOptions
from openrlhf_prm.annotation.records import Tally
from openrlhf_prm.annotation.rules import RULES

positive, relative = RULES["positive"], RULES["relative_progress"]


def test_positive_labels_each_step_by_itself():
    assert positive.labels(0.5, [0.125, 0.0, 0.25, 0.0]) == [1, 0, 1, 0]


def test_positive_decides_on_the_first_right_rollout():
    assert positive.decide(Tally(1, 8), 0.9, 1.96) is True
    # Nothing right: the upper limit of 0 of n is z^2 / (n + z^2) = 3.84 / (n + 3.84), to fall below 0.8 * 0.5.
    assert positive.decide(Tally(0, 5), 0.5, 1.96) is None
    assert positive.decide(Tally(0, 6), 0.5, 1.96) is False
    assert positive.is_good(Tally(1, 16), 1.0) and not positive.is_good(Tally(0, 16), 1.0)


@pytest.mark.parametrize(
    ("question", "values", "labels"),
    [
        (0.625, [0.5, 0.41, 0.34], [1, 1, 1]),  # each at least 0.8 of the one before
        (0.5, [0.39, 0.39], [0, 1]),  # falls, then keeps its value: the step itself is good
        (0.5, [0.5, 0.0, 0.5, 1.0], [1, 0, 0, 0]),  # after 0 everything is bad
        (0.0, [0.5, 1.0], [0, 0]),  # the policy cannot answer the question
        (0.5, [], []),
    ],
)
def test_relative_progress_labels(question, values, labels):
    assert relative.labels(question, values) == labels


def test_relative_progress_decides_on_intervals():
    # Reference 0.5: bad below 0.4, good from 0.1.
    assert relative.decide(Tally(0, 5), 0.5, 1.96) is None
    assert relative.decide(Tally(0, 6), 0.5, 1.96) is False
    assert relative.decide(Tally(1, 2), 0.5, 1.96) is None  # lower limit 0.094
    assert relative.decide(Tally(2, 4), 0.5, 1.96) is True  # lower limit 0.150
    assert relative.decide(Tally(1, 16), 0.5, 1.96) is False  # one recovery in 16 does not make a prefix good
    assert positive.decide(Tally(1, 16), 0.5, 1.96) is True
    assert relative.is_good(Tally(4, 16), 0.5) and not relative.is_good(Tally(3, 16), 0.5)
    assert not relative.is_good(Tally(0, 16), 0.0)


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="rule must be one of positive, relative_progress, got 'majority'"):
        AdaptiveOptions(rule="majority")
