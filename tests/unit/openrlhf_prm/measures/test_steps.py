"""Hand-worked numbers of the measures of error detection, degenerate cases included."""

import random

import numpy as np
import pytest

from openrlhf_prm.measures import steps as detection
from openrlhf_prm.measures.choices import roc_auc


def test_first_errors():
    assert detection.first_error([1, 0, None]) == 1
    assert detection.first_error([1, 1]) == detection.first_error([]) == -1
    assert detection.predicted_error([0.9, 0.4, 0.1], 0.5) == 1
    assert detection.predicted_error([0.9, 0.5], 0.5) == -1  # not below
    assert detection.predicted_error([0.9, None, 0.1], 0.5) is None
    assert detection.predicted_error([0.1, None], 0.5) == 0  # found before the gap


def test_error_f1():
    # Two of three errors found exactly, one of two right solutions kept: 2 * 2/3 * 1/2 / (7/6) = 4/7.
    found = detection.error_f1([1, 0, 2, -1, 0], [1, 0, 1, -1, -1])
    assert found == {"error_accuracy": pytest.approx(2 / 3), "correct_accuracy": 0.5, "f1": pytest.approx(4 / 7)}
    assert detection.error_f1([0, 0], [1, -1])["f1"] == 0.0
    assert detection.error_f1([None], [-1]) == {"error_accuracy": None, "correct_accuracy": 0.0, "f1": None}


def test_error_threshold_by_hand():
    # Error at step 1: found for thresholds in (0.3, 0.8]. No error: kept up to 0.5. Best from above 0.3 to 0.5.
    assert detection.error_threshold([[0.8, 0.3, 0.1], [0.5, 0.9]], [1, -1]) == pytest.approx(0.4)
    # An error whose score is not the lowest so far can never be found; one at step 0 for anything above its score.
    assert detection.error_threshold([[0.2, 0.3], [0.1], [0.6]], [1, 0, -1]) == pytest.approx(0.35)
    # Scores of any range, as of PURE.
    assert detection.error_threshold([[-0.5], [0.5]], [0, -1]) == pytest.approx(0.0)


def test_error_threshold_is_the_best_there_is():
    generator = random.Random(3)
    scores = [[generator.random() for _ in range(generator.randint(1, 5))] for _ in range(60)]
    errors = [generator.randint(-1, len(row) - 1) for row in scores]
    best = detection.error_threshold(scores, errors)

    def f1(threshold):
        return detection.error_f1([detection.predicted_error(row, threshold) for row in scores], errors)["f1"]

    grid = np.unique([score for row in scores for score in row])
    assert f1(best) == pytest.approx(max(map(f1, [0.0, *(grid[1:] + grid[:-1]) / 2, 1.0])))


@pytest.mark.parametrize(("scores", "errors"), [([], []), ([[0.5]], [0]), ([[0.5]], [-1]), ([[None], [0.5]], [0, -1])])
def test_error_threshold_needs_both_kinds(scores, errors):
    with pytest.raises(ValueError, match="with and without an error"):
        detection.error_threshold(scores, errors)


def test_prm_score():
    # F1 = 6 / (6 + 1 + 2), negative F1 = 8 / (8 + 2 + 1).
    found = detection.prm_score(3, 1, 2, 4)
    assert found["f1"] == pytest.approx(6 / 9) and found["negative_f1"] == pytest.approx(8 / 11)
    assert found["prm_score"] == pytest.approx((6 / 9 + 8 / 11) / 2)
    # All judged right: no wrong step is found, which is 0, not undefined.
    assert detection.prm_score(3, 2, 0, 0)["negative_f1"] == 0.0
    # No wrong step, and none predicted: there is no negative F1.
    assert np.isnan(detection.prm_score(3, 0, 0, 0)["prm_score"])


def test_step_threshold():
    assert detection.step_threshold([0.9, 0.6, 0.2, 0.1], [True, True, False, False]) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="right and wrong"):
        detection.step_threshold([0.9], [True])


def test_up_to_first_error():
    assert detection.up_to_first_error([0.9, 0.2, 0.1], [1, 0, None]) == ([0.9, 0.2], [True, False])
    assert detection.up_to_first_error([0.9, None, 0.4], [1, 1, 1]) == ([0.9, 0.4], [True, True])
    assert detection.up_to_first_error([], []) == ([], [])


def test_auc_with_interval():
    scores = [0.9, 0.8, 0.3, 0.7, 0.2, 0.6]
    right = [True, True, False, True, False, False]
    questions = ["a", "a", "a", "b", "b", "b"]
    found = detection.auc_with_interval(scores, right, questions)
    assert found["auc"] == roc_auc(scores, right) == 1.0 and found["interval"] == (1.0, 1.0)
    assert detection.auc_with_interval([0.5], [True], ["a"]) == {"auc": None, "interval": None}
    generator = random.Random(0)
    values = [generator.random() for _ in range(400)]
    labels = [generator.random() < value for value in values]
    noisy = detection.auc_with_interval(values, labels, [str(i) for i in range(400)])
    assert noisy["auc"] == roc_auc(values, labels)
    assert noisy["interval"][0] < noisy["auc"] < noisy["interval"][1]
    assert noisy["interval"][1] - noisy["interval"][0] == pytest.approx(4 * 0.022, abs=0.03)
    # The same steps as one question ten times over are not ten times the evidence.
    assert detection.auc_with_interval(values, labels, ["one"] * 400)["interval"] == pytest.approx([noisy["auc"]] * 2)


def test_calibration_by_hand():
    # Bin 9: 0.95, 0.95 with one right; bin 0: 0.05 wrong. Brier (0.0025 + 0.9025 + 0.0025) / 3.
    found = detection.calibration([0.95, 0.95, 0.05], [True, False, False], ["a", "b", "c"])
    assert found["brier"] == pytest.approx(0.9075 / 3)
    assert found["ece"] == pytest.approx(2 / 3 * 0.45 + 1 / 3 * 0.05)
    assert [(row["low"], row["count"], row["right"]) for row in found["reliability"]] == [(0.0, 1, 0.0), (0.9, 2, 0.5)]
    assert found["steps"] == 3 and found["brier_interval"][0] < found["brier"] < found["brier_interval"][1]


def test_calibration_at_its_ends():
    perfect = detection.calibration([0.0, 1.0], [False, True], ["a", "b"])
    assert perfect["brier"] == perfect["ece"] == 0.0 and len(perfect["reliability"]) == 2
    assert detection.calibration([], [], []) is None
    assert detection.calibration([-0.2, 0.5], [False, True], ["a", "b"]) is None  # no probabilities


def test_intervals_draw_whole_questions():
    columns = detection.by_question(["a", "a", "b"], [1, 0, 1], [1, 1, 1])
    assert columns.tolist() == [[1, 2], [1, 1]]
    # Draws of two questions: 2/4, 2/3 or 2/2.
    low, high = detection.interval_of(columns, lambda sums: sums[:, 0] / sums[:, 1])
    assert low == pytest.approx(0.5) and high == pytest.approx(1.0)
    assert detection.interval_of(np.zeros((0, 2)), lambda sums: sums[:, 0]) is None
    assert detection.interval_of(np.zeros((3, 2)), lambda sums: sums[:, 0] / sums[:, 1]) is None
