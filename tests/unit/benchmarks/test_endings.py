"""What the benchmark of endings reports, worked by hand."""

import pytest

from benchmarks.endings import exact_values, saved


def test_values_of_a_planted_chain():
    # Right in 0.25 of two steps, so 0.5 after the first; an error leaves the chance to recover.
    assert exact_values(["+a", "-b"], 0.25, 0.0) == [0.5, 0.0]
    assert exact_values(["+a", "+b"], 0.25, 0.1) == pytest.approx([0.5 + 0.05, 1.0])


def test_rollouts_saved_at_the_same_accuracy():
    def row(cost, accuracy):
        return {"rollouts_per_label": cost, "label_accuracy": accuracy}

    rows = {
        "without": {"1": row(1.0, 0.5), "4": row(4.0, 0.8), "8": row(8.0, 0.95)},
        "with": {"1": row(1.0, 0.6), "4": row(4.0, 0.9)},
    }
    # 0.8 lies two thirds of the way from 1 rollout to 4: 3 of 4 are needed.
    assert saved(rows, "label_accuracy") == {"1": None, "4": 0.25, "8": None}
