"""The best thresholds: by hand, and against every other one."""

import random

import numpy as np
import pytest

from openrlhf_prm.measures.steps import error_f1, predicted_error
from openrlhf_prm.measures.thresholds import error_threshold, step_threshold


def test_error_threshold_by_hand():
    # Error at step 1: found for thresholds in (0.3, 0.8]. No error: kept up to 0.5. Best from above 0.3 to 0.5.
    assert error_threshold([[0.8, 0.3, 0.1], [0.5, 0.9]], [1, -1]) == pytest.approx(0.4)
    # An error whose score is not the lowest so far can never be found; one at step 0 for anything above its score.
    assert error_threshold([[0.2, 0.3], [0.1], [0.6]], [1, 0, -1]) == pytest.approx(0.35)
    # Scores of any range, as of PURE.
    assert error_threshold([[-0.5], [0.5]], [0, -1]) == pytest.approx(0.0)


def test_error_threshold_is_the_best_there_is():
    generator = random.Random(3)
    scores = [[generator.random() for _ in range(generator.randint(1, 5))] for _ in range(60)]
    errors = [generator.randint(-1, len(row) - 1) for row in scores]
    best = error_threshold(scores, errors)

    def f1(threshold):
        return error_f1([predicted_error(row, threshold) for row in scores], errors)["f1"]

    grid = np.unique([score for row in scores for score in row])
    assert f1(best) == pytest.approx(max(map(f1, [0.0, *(grid[1:] + grid[:-1]) / 2, 1.0])))


@pytest.mark.parametrize(("scores", "errors"), [([], []), ([[0.5]], [0]), ([[0.5]], [-1]), ([[None], [0.5]], [0, -1])])
def test_error_threshold_needs_both_kinds(scores, errors):
    with pytest.raises(ValueError, match="with and without an error"):
        error_threshold(scores, errors)


def test_step_threshold():
    assert step_threshold([0.9, 0.6, 0.2, 0.1], [True, True, False, False]) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="right and wrong"):
        step_threshold([0.9], [True])
