"""PRM scores of every range as probabilities, worked by hand."""

import math

import pytest

from openrlhf_prm.ppo.score_ranges import as_probabilities


def test_ranges_by_hand():
    assert as_probabilities([0.0, 0.25, 1.0], "probability") == [0.0, 0.25, 1.0]
    assert as_probabilities([-1.0, 0.5, 1.0], "signed") == [0.0, 0.75, 1.0]
    assert as_probabilities([0.0, math.log(3), -math.log(3)], "logit") == pytest.approx([0.5, 0.75, 0.25])
    assert as_probabilities([1e4, -1e4], "logit") == [1.0, 0.0]
    assert as_probabilities([], "signed") == []


def test_rounding_is_forgiven():
    assert as_probabilities([1 + 1e-7, -1e-7], "probability") == [1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "score"),
    [("probability", -0.8), ("probability", 1.5), ("signed", 2.0), ("logit", math.nan), ("probability", None)],
)
def test_scores_outside_are_refused_with_the_flag(name, score):
    with pytest.raises(ValueError, match=f"--prm.score_range {name}: the PRM gave step 2 of 2 the score {score}"):
        as_probabilities([0.5, score], name)
