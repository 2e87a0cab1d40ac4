"""Step scores against labels: hand-worked numbers, degenerate cases included."""

import random

import numpy as np
import pytest

from openrlhf_prm.measures.steps import (
    NO_ERROR,
    auc_with_interval,
    brier_score,
    calibration,
    error_f1,
    expected_calibration_error,
    f1_score,
    first_error,
    predicted_error,
    prm_score,
    roc_auc,
    up_to_first_error,
)


def test_first_errors():
    assert first_error([1, 0, None]) == 1
    assert first_error([1, 1]) == first_error([]) == NO_ERROR == -1
    assert first_error([0.9, 0.5, 0.4, 0.9]) == 2  # soft labels: right from 0.5 on
    assert first_error([None, 0]) == 1  # what is not known is no error
    assert predicted_error([0.9, 0.4, 0.1], 0.5) == 1
    assert predicted_error([0.9, 0.5], 0.5) == -1  # not below
    assert predicted_error([0.9, None, 0.1], 0.5) is None
    assert predicted_error([0.1, None], 0.5) == 0  # found before the gap


def test_error_f1():
    # Two of three errors found exactly, one of two right solutions kept: 2 * 2/3 * 1/2 / (7/6) = 4/7.
    measures = error_f1([1, 0, 2, -1, 0], [1, 0, 1, -1, -1])
    assert measures == {"error_accuracy": pytest.approx(2 / 3), "correct_accuracy": 0.5, "f1": pytest.approx(4 / 7)}
    assert error_f1([0, 0], [1, -1])["f1"] == 0.0
    assert error_f1([None], [-1]) == {"error_accuracy": None, "correct_accuracy": 0.0, "f1": None}


@pytest.mark.parametrize(("counts", "expected"), [((1, 0, 0), 1.0), ((1, 1, 0), 2 / 3), ((0, 0, 1), 0.0)])
def test_f1(counts, expected):
    assert f1_score(*counts) == expected


def test_f1_of_a_class_that_neither_occurs_nor_is_predicted():
    assert np.isnan(f1_score(0, 0, 0))
    assert f1_score([1, 0], [1, 0], [0, 1]).tolist() == [2 / 3, 0.0]  # elementwise


def test_prm_score():
    # F1 = 6 / (6 + 1 + 2), negative F1 = 8 / (8 + 2 + 1).
    measures = prm_score(3, 1, 2, 4)
    assert measures["f1"] == pytest.approx(6 / 9) and measures["negative_f1"] == pytest.approx(8 / 11)
    assert measures["prm_score"] == pytest.approx((6 / 9 + 8 / 11) / 2)
    # All judged right: no wrong step is found, which is 0, not undefined.
    assert prm_score(3, 2, 0, 0)["negative_f1"] == 0.0
    # No wrong step, and none predicted: there is no negative F1.
    assert np.isnan(prm_score(3, 0, 0, 0)["prm_score"])


def test_up_to_first_error():
    assert up_to_first_error([0.9, 0.2, 0.1], [1, 0, None]) == ([0.9, 0.2], [True, False])
    assert up_to_first_error([0.9, None, 0.4], [1, 1, 1]) == ([0.9, 0.4], [True, True])
    assert up_to_first_error([], []) == ([], [])


def test_auc_with_interval():
    scores = [0.9, 0.8, 0.3, 0.7, 0.2, 0.6]
    right = [True, True, False, True, False, False]
    questions = ["a", "a", "a", "b", "b", "b"]
    perfect = auc_with_interval(scores, right, questions)
    assert perfect["auc"] == roc_auc(scores, right) == 1.0 and perfect["interval"] == (1.0, 1.0)
    assert auc_with_interval([0.5], [True], ["a"]) == {"auc": None, "interval": None}
    generator = random.Random(0)
    values = [generator.random() for _ in range(400)]
    labels = [generator.random() < value for value in values]
    noisy = auc_with_interval(values, labels, [str(i) for i in range(400)])
    assert noisy["auc"] == roc_auc(values, labels)
    assert noisy["interval"][0] < noisy["auc"] < noisy["interval"][1]
    assert noisy["interval"][1] - noisy["interval"][0] == pytest.approx(4 * 0.022, abs=0.03)
    # The same steps as one question ten times over are not ten times the evidence.
    assert auc_with_interval(values, labels, ["one"] * 400)["interval"] == pytest.approx([noisy["auc"]] * 2)


def test_calibration_by_hand():
    # Bin 9: 0.95, 0.95 with one right; bin 0: 0.05 wrong. Brier (0.0025 + 0.9025 + 0.0025) / 3.
    measures = calibration([0.95, 0.95, 0.05], [True, False, False], ["a", "b", "c"])
    assert measures["brier"] == pytest.approx(0.9075 / 3)
    assert measures["ece"] == pytest.approx(2 / 3 * 0.45 + 1 / 3 * 0.05)
    assert [(row["low"], row["count"], row["right"]) for row in measures["reliability"]] == [
        (0.0, 1, 0.0),
        (0.9, 2, 0.5),
    ]
    assert measures["steps"] == 3 and measures["brier_interval"][0] < measures["brier"] < measures["brier_interval"][1]


def test_calibration_at_its_ends():
    perfect = calibration([0.0, 1.0], [False, True], ["a", "b"])
    assert perfect["brier"] == perfect["ece"] == 0.0 and len(perfect["reliability"]) == 2
    assert calibration([], [], []) is None
    assert calibration([-0.2, 0.5], [False, True], ["a", "b"]) is None  # no probabilities


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
    assert roc_auc(scores, right) == expected


def test_measures_need_aligned_lists():
    for measure in (roc_auc, brier_score, expected_calibration_error):
        with pytest.raises(ValueError, match="got 1 and 2"):
            measure([0.5], [True, False])


def test_auc_counts_pairs():
    rng = random.Random(0)
    scores = [rng.randint(0, 9) / 10 for _ in range(60)]
    right = [rng.random() < 0.4 for _ in range(60)]
    steps = list(zip(scores, right, strict=True))
    pairs = [(good, bad) for good, is_right in steps if is_right for bad, is_good in steps if not is_good]
    assert roc_auc(scores, right) == pytest.approx(sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs))


@pytest.mark.parametrize(
    ("probabilities", "labels", "ece", "brier"),
    [
        ([1.0, 0.0], [1, 0], 0.0, 0.0),
        ([0.5, 0.5], [1, 0], 0.0, 0.25),  # calibrated and useless
        ([1.0, 1.0], [1, 0], 0.5, 0.5),
        ([0.82, 0.88], [1, 1], 0.15, (0.18**2 + 0.12**2) / 2),  # one bin
        ([0.3, 0.9], [0.3, 0.9], 0.0, 0.0),  # soft labels
        ([1.5], [1], None, 0.25),  # no probability
        ([], [], None, None),
    ],
)
def test_brier_score_and_calibration_error(probabilities, labels, ece, brier):
    assert expected_calibration_error(probabilities, labels) == pytest.approx(ece)
    assert brier_score(probabilities, labels) == pytest.approx(brier)
