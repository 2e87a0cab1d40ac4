"""Agreement of step scores with step labels, by hand."""

import random

import pytest

from openrlhf_prm.measures.agreement import (
    METRICS,
    auc,
    brier_score,
    expected_calibration_error,
    f1,
    first_error,
    first_error_f1,
    step_metrics,
)


@pytest.mark.parametrize(
    ("scores", "right", "expected"),
    [
        ([0.9, 0.8, 0.2, 0.1], [True, True, False, False], 1.0),
        ([0.1, 0.2, 0.8, 0.9], [True, True, False, False], 0.0),
        ([0.5, 0.5, 0.5], [True, False, True], 0.5),  # ties count half
        ([0.9, 0.4, 0.6, 0.1], [True, True, False, False], 0.75),  # 3 of 4 pairs
        ([0.4, 0.4, 0.1], [True, False, False], 0.75),  # one tie, one win
        ([0.1, 0.9], [True, True], None),
        ([], [], None),
    ],
)
def test_auc(scores, right, expected):
    assert auc(scores, right) == expected


def test_auc_counts_pairs():
    rng = random.Random(0)
    scores = [rng.randint(0, 9) / 10 for _ in range(60)]
    right = [rng.random() < 0.4 for _ in range(60)]
    steps = list(zip(scores, right, strict=True))
    pairs = [(good, bad) for good, is_right in steps if is_right for bad, is_good in steps if not is_good]
    assert auc(scores, right) == pytest.approx(sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs))


def test_first_error():
    assert first_error([0.9, 0.5, 0.4, 0.9]) == 2
    assert first_error([0.9, 0.5]) is None
    assert first_error([]) is None


def test_first_error_f1():
    labels = [[1, 0], [1, 1, 0], [1, 1], [1], [1]]
    scores = [[0.9, 0.1], [0.9, 0.1, 0.9], [0.9, 0.9], [0.8], [0.2]]
    # wrong solutions: 1 of 2 first errors found; right ones: 2 of 3 left alone
    assert first_error_f1(scores, labels) == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [([[0.9]], [[1]], None), ([[0.9]], [[0]], None), ([[0.1], [0.9]], [[1], [0]], 0.0), ([], [], None)],
)
def test_first_error_f1_degenerates(scores, labels, expected):
    assert first_error_f1(scores, labels) == expected


def test_step_metrics():
    metrics = step_metrics([[0.9, 0.4], [0.7]], [[1, 0.2], [0.4]])
    assert set(metrics) == {"steps", *METRICS} - {"loss"}
    assert (metrics["steps"], metrics["step_accuracy"], metrics["auc"]) == (3, 2 / 3, 1.0)
    assert metrics["first_error_f1"] is None
    assert metrics["f1"] == 2 / 3  # 1 found of 1, 2 said to be right
    assert metrics["error_f1"] == 2 / 3  # 1 found of 2, 1 said to be wrong
    assert metrics["brier"] == pytest.approx((0.01 + 0.04 + 0.09) / 3)
    assert metrics["ece"] == pytest.approx((0.1 + 0.2 + 0.3) / 3)  # each in a bin of its own
    with pytest.raises(ValueError, match="same numbers of steps"):
        step_metrics([[0.9]], [[1, 0]])
    with pytest.raises(ValueError, match="no step"):
        step_metrics([[]], [[]])


@pytest.mark.parametrize(
    ("found", "true", "expected"),
    [
        ([True, False], [True, False], 1.0),
        ([True, True], [True, False], 2 / 3),
        ([False, False], [True, False], 0.0),
        ([False, False], [False, False], None),
        ([], [], None),
    ],
)
def test_f1(found, true, expected):
    assert f1(found, true) == expected


@pytest.mark.parametrize(
    ("probabilities", "labels", "ece", "brier"),
    [
        ([1.0, 0.0], [1, 0], 0.0, 0.0),
        ([0.5, 0.5], [1, 0], 0.0, 0.25),  # calibrated and useless
        ([1.0, 1.0], [1, 0], 0.5, 0.5),
        ([0.82, 0.88], [1, 1], 0.15, (0.18**2 + 0.12**2) / 2),  # one bin
        ([0.3, 0.9], [0.3, 0.9], 0.0, 0.0),  # soft labels
        ([], [], None, None),
    ],
)
def test_calibration(probabilities, labels, ece, brier):
    assert expected_calibration_error(probabilities, labels) == pytest.approx(ece)
    assert brier_score(probabilities, labels) == pytest.approx(brier)
