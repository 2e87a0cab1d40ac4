"""Agreement of step scores with step labels, by hand."""

import random

import pytest

from openrlhf_prm.trainers.prm_metrics import auc, first_error, first_error_f1, step_metrics


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
    assert metrics == {"steps": 3, "step_accuracy": 2 / 3, "auc": 1.0, "first_error_f1": None}
    with pytest.raises(ValueError, match="same numbers of steps"):
        step_metrics([[0.9]], [[1, 0]])
    with pytest.raises(ValueError, match="no step"):
        step_metrics([[]], [[]])
