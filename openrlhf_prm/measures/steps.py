"""How well step scores tell right steps from wrong ones: first errors, F1, AUC, calibration. Pure functions.

Legend: S steps of one solution, T steps of all solutions together. A score is what a PRM gives a step, high for right;
a label is 1 for a right step, 0 for a wrong one, or in between (right from 0.5 on), and None where nothing is known.
Intervals are 95% percentile bootstrap intervals over questions (see `measures.intervals`).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from openrlhf_prm.measures.intervals import (
    interval_of_sums,
    percentile_interval,
    ratio_of_sums,
    require_aligned,
    sums_by_question,
)

HALF = 0.5
NO_ERROR = -1
"""ProcessBench's label of a solution without an error."""


def first_error(labels: Sequence[float | None]) -> int:
    """Index of the first wrong step (label below 0.5), from 0; -1 where there is none."""
    return next((index for index, label in enumerate(labels) if label is not None and label < HALF), NO_ERROR)


def predicted_error(scores: Sequence[float | None], threshold: float) -> int | None:
    """Index of the first step that scores below the threshold, -1 where none does.

    None (no verdict, which is never right) where a step without a score comes before it.
    """
    for index, score in enumerate(scores):
        if score is None:
            return None
        if score < threshold:
            return index
    return NO_ERROR


def error_f1(predictions: Sequence[int | None], errors: Sequence[int]) -> dict:
    """ProcessBench's measures (arXiv:2412.06559): `error_accuracy`, the share of solutions with an error whose first
    error was found exactly, `correct_accuracy`, the share of those without one in which none was found, and `f1`,
    their harmonic mean.

    None for a share of nothing, and then for F1.
    """
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for prediction, error in zip(predictions, errors, strict=True):
        hits[error == NO_ERROR].append(prediction == error)
    on_wrong, on_right = (sum(verdicts) / len(verdicts) if verdicts else None for verdicts in (hits[False], hits[True]))
    known = on_wrong is not None and on_right is not None
    return {
        "error_accuracy": on_wrong,
        "correct_accuracy": on_right,
        "f1": float(harmonic_mean(on_wrong, on_right)) if known else None,
    }


def harmonic_mean(left, right):
    """2 l r / (l + r), elementwise; 0 where both are 0."""
    left, right = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    total = left + right
    return np.divide(2 * left * right, total, out=np.zeros_like(total), where=total > 0)


def f1_score(true_positive, false_positive, false_negative):
    """Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN), elementwise on counts; nan where the class
    neither occurs nor is predicted.
    """
    tp, fp, fn = (np.asarray(count, dtype=float) for count in (true_positive, false_positive, false_negative))
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * tp / (2 * tp + fp + fn)


def prm_score(true_positive, false_positive, false_negative, true_negative) -> dict:
    """PRMBench's measures (arXiv:2501.03124) from counts of steps, positive = judged right; elementwise on arrays.

        f1          = 2 TP / (2 TP + FP + FN)         right steps as the class that is looked for
        negative_f1 = 2 TN / (2 TN + FN + FP)         wrong steps as that class
        prm_score   = (f1 + negative_f1) / 2

    0 where a class is never judged right; nan where it neither occurs nor is predicted, and then for the score.
    """
    positive = f1_score(true_positive, false_positive, false_negative)
    negative = f1_score(true_negative, false_negative, false_positive)
    return {"f1": positive, "negative_f1": negative, "prm_score": (positive + negative) / 2}


def up_to_first_error(scores: Sequence[float | None], labels: Sequence[int | None]) -> tuple[list[float], list[bool]]:
    """The scored steps of a solution up to and including its first error, and whether each is right.

    What comes after an error has no label in ProcessBench, and a PRM that gives every later step a low score would be
    paid for it many times. Steps without score or label are left out.
    """
    error = first_error(labels)
    end = len(labels) if error == NO_ERROR else error + 1
    kept = [
        (score, label == 1)
        for score, label in zip(scores[:end], labels[:end], strict=True)
        if score is not None and label is not None
    ]
    return [score for score, _ in kept], [right for _, right in kept]


def roc_auc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """The chance that a right step scores above a wrong one, ties counted half, over all pairs of one right and one
    wrong step (Mann and Whitney 1947). None where one of the classes is empty. Raises ValueError for unequal lengths.
    """
    require_aligned(scores, right)
    return _weighted_auc(*_levels_and_labels(scores, right), np.ones(len(scores)))


def auc_with_interval(
    scores: Sequence[float], right: Sequence[bool], questions: Sequence[str], *, seed: int = 0, draws: int = 500
) -> dict:
    """`auc` (see `roc_auc`) with its `interval`, of T steps and the questions they belong to. None where one class is
    empty; draws in which one is are left out.
    """
    value = roc_auc(scores, right)
    if value is None:
        return {"auc": None, "interval": None}
    level, labels = _levels_and_labels(scores, right)
    _, question = np.unique(np.asarray(questions), return_inverse=True)
    count = question.max() + 1
    generator = np.random.default_rng(seed)
    drawn = (np.bincount(generator.integers(0, count, size=count), minlength=count)[question] for _ in range(draws))
    values = [_weighted_auc(level, labels, weights) for weights in drawn]
    return {"auc": value, "interval": percentile_interval([value for value in values if value is not None])}


def _levels_and_labels(scores: Sequence[float], right: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """The rank of each score among the distinct ones, and the labels; (T,) each."""
    return np.unique(np.asarray(scores, dtype=float), return_inverse=True)[1], np.asarray(right, dtype=bool)


def _weighted_auc(level: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float | None:
    """AUC of T steps, each of which stands there `weights` times. None without a pair."""
    positive, negative = np.bincount(level, weights * labels), np.bincount(level, weights * ~labels)
    pairs = positive.sum() * negative.sum()
    if not pairs:
        return None
    return float((positive * (np.cumsum(negative) - negative / 2)).sum() / pairs)


def brier_score(probabilities: Sequence[float], labels: Sequence[float]) -> float | None:
    """Mean squared difference of probability and label, (1/T) sum_t (p_t - y_t)^2 (Brier 1950); always 0.5 gives 0.25
    on hard labels. None without a step. Raises ValueError for unequal lengths.
    """
    require_aligned(probabilities, labels)
    if not len(labels):
        return None
    return float(((np.asarray(probabilities, dtype=float) - np.asarray(labels, dtype=float)) ** 2).mean())


def expected_calibration_error(probabilities: Sequence[float], labels: Sequence[float], bins: int = 10) -> float | None:
    """How far probabilities are from the frequencies they announce (Naeini et al. 2015; Guo et al. 2017,
    arXiv:1706.04599), over bins of equal width of which the last is closed:

        sum_b |B_b|/T * |mean of y in B_b - mean of p in B_b|

    Labels may be soft. 0 is perfect; a constant equal to the mean label is perfect, too. None without a step, and where
    a number lies outside [0, 1] and is no probability. Raises ValueError for unequal lengths.
    """
    require_aligned(probabilities, labels)
    values, targets = np.asarray(probabilities, dtype=float), np.asarray(labels, dtype=float)
    if not _are_probabilities(values):
        return None
    gaps = [
        inside.sum() * abs(float(targets[inside].mean()) - float(values[inside].mean()))
        for _, inside in _filled_bins(values, bins)
    ]
    return math.fsum(gaps) / len(values)


def calibration(
    scores: Sequence[float], right: Sequence[bool], questions: Sequence[str], *, bins: int = 10, seed: int = 0
) -> dict | None:
    """How far scores are probabilities that a step is right, over T steps with the questions they belong to: `brier`
    and `ece` (see `brier_score`, `expected_calibration_error`), `brier_interval`, `steps`, and `reliability`, one row
    for each bin that is not empty: `low`, `high`, `count`, `mean_score`, `right` (share of right steps), `interval`.

    ECE has no interval: resampling raises it. None for no step, and where a score is no probability.
    """
    values, labels = np.asarray(scores, dtype=float), np.asarray(right, dtype=float)
    if not _are_probabilities(values):
        return None
    squares = sums_by_question(questions, (values - labels) ** 2, np.ones_like(values))
    reliability = []
    for index, inside in _filled_bins(values, bins):
        columns = sums_by_question(np.asarray(questions)[inside], labels[inside], np.ones(inside.sum()))
        reliability.append(
            {
                "low": index / bins,
                "high": (index + 1) / bins,
                "count": int(inside.sum()),
                "mean_score": float(values[inside].mean()),
                "right": float(labels[inside].mean()),
                "interval": interval_of_sums(columns, ratio_of_sums, seed=seed),
            }
        )
    return {
        "brier": brier_score(values, labels),
        "brier_interval": interval_of_sums(squares, ratio_of_sums, seed=seed),
        "ece": expected_calibration_error(values, labels, bins),
        "steps": len(values),
        "reliability": reliability,
    }


def _are_probabilities(values: np.ndarray) -> bool:
    return bool(len(values)) and values.min() >= 0 and values.max() <= 1


def _filled_bins(values: np.ndarray, bins: int) -> Iterator[tuple[int, np.ndarray]]:
    """The number of each bin that is not empty and the mask of what is inside."""
    bin_of = np.minimum((values * bins).astype(int), bins - 1)
    for index in range(bins):
        inside = bin_of == index
        if inside.any():
            yield index, inside
