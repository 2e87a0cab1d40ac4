import math

import pytest

from vllm_prm.aggregation import SCORE_AGGREGATIONS, applicable_aggregations, require_aggregation
from vllm_prm.protocol import aggregated


@pytest.mark.parametrize(("name", "expected"), [("min", 0.25), ("prod", 0.1), ("last", 0.8), ("mean", 1.55 / 3)])
def test_hand_worked(name, expected):
    assert SCORE_AGGREGATIONS[name]([0.5, 0.25, 0.8]) == pytest.approx(expected)


@pytest.mark.parametrize("name", SCORE_AGGREGATIONS)
def test_one_step_is_its_own_aggregate(name):
    assert SCORE_AGGREGATIONS[name]([0.3]) == 0.3


@pytest.mark.parametrize("name", SCORE_AGGREGATIONS)
def test_no_step_is_an_error_that_names_the_aggregation(name):
    with pytest.raises(ValueError, match=f"'{name}'.*empty"):
        SCORE_AGGREGATIONS[name]([])


def test_a_product_is_of_probabilities():
    """[-0.5, -0.5] gave 0.25: two bad steps, a good solution."""
    for scores in ([-0.5, -0.5], [0.5, 1.5]):
        assert applicable_aggregations([*scores, None]) == ["min", "last", "mean"]
        with pytest.raises(ValueError, match=r"'prod' needs scores in \[0, 1\], got (-0.5|1.5); choose min"):
            aggregated(scores, "prod")
    assert applicable_aggregations([0.0, 1.0, None]) == applicable_aggregations([]) == list(SCORE_AGGREGATIONS)


@pytest.mark.parametrize("score_range", [(-1.0, 1.0), (-math.inf, math.inf)])
def test_a_prm_of_signed_scores_has_no_product(score_range):
    for name in (None, "min", "last", "mean"):
        require_aggregation(name, score_range)
    require_aggregation("prod", (0.0, 1.0))
    with pytest.raises(ValueError, match=r"'prod' needs scores in \[0, 1\], this PRM's lie in \[-(1|inf), "):
        require_aggregation("prod", score_range)


def test_a_solution_cut_short_has_no_aggregate():
    assert aggregated([0.9, None], "min") is None
    assert aggregated([], "min") is None
    assert aggregated([0.9, 0.2], None) is None
    assert aggregated([0.9, 0.2], "min") == 0.2
