"""Intervals, by hand and against scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from openrlhf_prm.measures.intervals import (
    bootstrap_interval,
    interval_of_sums,
    paired_gain,
    ratio_of_sums,
    share_interval,
    sums_by_question,
    wilson_interval,
)


def test_wilson_interval():
    low, high = wilson_interval(8, 10)
    # p = 0.8, z^2 = 3.8415: (0.8 + 0.19207 -+ 1.96 sqrt(0.016 + 0.0096036)) / 1.38415
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson_interval(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert wilson_interval(10, 10) == (pytest.approx(0.7225, abs=1e-4), 1.0)
    assert wilson_interval(0, 0) == (0.0, 1.0)  # nothing is excluded


@settings(deadline=None)
@given(st.integers(1, 200), st.data())
def test_wilson_is_scipys(total, data):
    right = data.draw(st.integers(0, total))
    expected = binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_shares_of_zero_and_one_get_wilsons_interval():
    assert share_interval([1, 0, 1, 1]) == wilson_interval(3, 4)
    assert share_interval([1.0, 0.5, 0.0]) == bootstrap_interval([1.0, 0.5, 0.0])
    assert share_interval([]) is None


def test_bootstrap_interval():
    values = [0.0, 1.0] * 50
    low, high = bootstrap_interval(values, seed=1)
    assert (low, high) == bootstrap_interval(values, seed=1)
    assert low == pytest.approx(0.40, abs=0.03) and high == pytest.approx(0.60, abs=0.03)  # 0.5 -+ 1.96 * 0.05
    assert bootstrap_interval([0.25] * 4) == (0.25, 0.25)
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([0.0, 0.0], [0.0, 0.0]) is None  # no step anywhere
    assert bootstrap_interval([2.0, 4.0], [4.0, 8.0]) == (0.5, 0.5)


def test_paired_gain():
    assert paired_gain([0, 0, 1], [1, 1, 1])["gain"] == pytest.approx(2 / 3)
    assert paired_gain([0, 1], [1, 2]) == {"gain": 1.0, "interval": (1.0, 1.0)}
    assert paired_gain([], []) is None
    with pytest.raises(ValueError, match="got 1 and 2"):
        paired_gain([0], [1, 2])


def test_intervals_draw_whole_questions():
    columns = sums_by_question(["a", "a", "b"], [1, 0, 1], [1, 1, 1])
    assert columns.tolist() == [[1, 2], [1, 1]]
    # Draws of two questions: 2/4, 2/3 or 2/2.
    low, high = interval_of_sums(columns, ratio_of_sums)
    assert low == pytest.approx(0.5) and high == pytest.approx(1.0)
    assert interval_of_sums(np.zeros((0, 2)), lambda sums: sums[:, 0]) is None
    assert interval_of_sums(np.zeros((3, 2)), ratio_of_sums) is None
