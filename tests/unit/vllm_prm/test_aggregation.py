import pytest

from vllm_prm.aggregation import SCORE_AGGREGATIONS
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


def test_a_solution_cut_short_has_no_aggregate():
    assert aggregated([0.9, None], "min") is None
    assert aggregated([], "min") is None
    assert aggregated([0.9, 0.2], None) is None
    assert aggregated([0.9, 0.2], "min") == 0.2
