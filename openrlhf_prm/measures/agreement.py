"""What a PRM's training reports on held-out labels: all measures of step scores in one call.

Scores and labels are lists per solution, one number per step; a step counts as right where its number is at least 0.5.
"""

import math
from collections.abc import Sequence

from openrlhf_prm.measures.steps import (
    HALF,
    brier_score,
    error_f1,
    expected_calibration_error,
    first_error,
    predicted_error,
    prm_score,
    roc_auc,
)

METRICS = ("step_accuracy", "f1", "error_f1", "first_error_f1", "auc", "ece", "brier", "loss")
"""What a training's evaluation measures."""
LOWER_IS_BETTER = frozenset({"ece", "brier", "loss"})


def step_metrics(scores: Sequence[Sequence[float]], labels: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """All of `METRICS` but the loss, and their number of `steps`, for solutions with at least one step in all.

    `f1` is that of right steps, `error_f1` that of wrong ones (their mean is PRMBench's PRMScore, arXiv:2501.03124),
    None where the class neither occurs nor is predicted; `first_error_f1` is ProcessBench's (arXiv:2412.06559). The
    formulas stand in `measures.steps`. Raises ValueError where scores and labels do not pair up.
    """
    if [len(row) for row in scores] != [len(row) for row in labels]:
        raise ValueError("scores and labels must have the same solutions with the same numbers of steps")
    flat_scores = [score for row in scores for score in row]
    flat_labels = [label for row in labels for label in row]
    right = [label >= HALF for label in flat_labels]
    if not right:
        raise ValueError("no step to measure on")
    pairs = [(score >= HALF, label) for score, label in zip(flat_scores, right, strict=True)]
    true_positive, false_positive, false_negative, true_negative = (
        pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))
    )
    of_classes = prm_score(true_positive, false_positive, false_negative, true_negative)
    predictions = [predicted_error(row, HALF) for row in scores]
    return {
        "steps": len(right),
        "step_accuracy": (true_positive + true_negative) / len(right),
        "f1": _number(of_classes["f1"]),
        "error_f1": _number(of_classes["negative_f1"]),
        "first_error_f1": error_f1(predictions, [first_error(row) for row in labels])["f1"],
        "auc": roc_auc(flat_scores, right),
        "ece": expected_calibration_error(flat_scores, flat_labels),
        "brier": brier_score(flat_scores, flat_labels),
    }


def _number(value) -> float | None:
    return None if math.isnan(value) else float(value)
