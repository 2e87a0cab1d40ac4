"""Agreement of step scores with step labels, by hand."""

import pytest

from openrlhf_prm.measures.agreement import METRICS, step_metrics


def test_step_metrics():
    metrics = step_metrics([[0.9, 0.4], [0.7]], [[1, 0.2], [0.4]])
    assert set(metrics) == {"steps", *METRICS} - {"loss"}
    assert (metrics["steps"], metrics["step_accuracy"], metrics["auc"]) == (3, 2 / 3, 1.0)
    assert metrics["first_error_f1"] is None  # no right solution
    assert metrics["f1"] == 2 / 3  # 1 found of 1, 2 said to be right
    assert metrics["error_f1"] == 2 / 3  # 1 found of 2, 1 said to be wrong
    assert metrics["brier"] == pytest.approx((0.01 + 0.04 + 0.09) / 3)
    assert metrics["ece"] == pytest.approx((0.1 + 0.2 + 0.3) / 3)  # each in a bin of its own


def test_classes_that_do_not_occur():
    metrics = step_metrics([[0.9, 0.8]], [[1, 1]])
    assert (metrics["f1"], metrics["error_f1"], metrics["auc"], metrics["step_accuracy"]) == (1.0, None, None, 1.0)


def test_scores_and_labels_must_pair_up():
    with pytest.raises(ValueError, match="same numbers of steps"):
        step_metrics([[0.9]], [[1, 0]])
    with pytest.raises(ValueError, match="no step"):
        step_metrics([[]], [[]])


def test_first_error_f1():
    labels = [[1, 0], [1, 1, 0], [1, 1], [1], [1]]
    scores = [[0.9, 0.1], [0.9, 0.1, 0.9], [0.9, 0.9], [0.8], [0.2]]
    # Wrong solutions: 1 of 2 first errors found; right ones: 2 of 3 left alone.
    expected = 2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2)
    assert step_metrics(scores, labels)["first_error_f1"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [([[0.9]], [[1]], None), ([[0.9]], [[0]], None), ([[0.1], [0.9]], [[1], [0]], 0.0)],
)
def test_first_error_f1_degenerates(scores, labels, expected):
    assert step_metrics(scores, labels)["first_error_f1"] == expected
