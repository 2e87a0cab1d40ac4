"""How well step scores find errors: the measures of ProcessBench and PRMBench, thresholds, calibration. Pure functions.

Legend: S steps of one solution, Q questions, T steps of all solutions together. A score is what a PRM gives a step,
high for right; a label is 1 for a right step, 0 for a wrong one, None where nothing is known about it.

Intervals are 95% percentile bootstrap intervals over questions (Efron 1979): the steps of a question are not
independent, so whole questions are drawn.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from openrlhf_prm.measures.choices import roc_auc

DRAWS = 2000
NO_ERROR = -1
"""ProcessBench's label of a solution without an error."""


def first_error(labels: Sequence[int | None]) -> int:
    """Index of the first wrong step, from 0; -1 where there is none."""
    return next((index for index, label in enumerate(labels) if label == 0), NO_ERROR)


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


def harmonic_mean(left, right):
    """2 l r / (l + r), elementwise; 0 where both are 0."""
    left, right = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    total = left + right
    return np.divide(2 * left * right, total, out=np.zeros_like(total), where=total > 0)


def error_threshold(scores: Sequence[Sequence[float | None]], errors: Sequence[int]) -> float:
    """The threshold with the highest ProcessBench F1 (see `error_f1`) on solutions whose first error is known.

    `scores`: S_i scores each; `errors`: index of the first error or -1. A solution with first error e is judged right
    for thresholds in (s_e, min_{j<e} s_j], one without error for those up to min_j s_j, so F1 changes only at these
    values. Of the best stretches between two of them the widest is taken, and its middle. Solutions with a step
    without a score are left out. Raises ValueError where solutions with and without an error are not both there.
    """
    opens, closes, lowest = [], [], []
    wrong = 0
    for row, error in zip(scores, errors, strict=True):
        if None in row or not row:
            continue
        if error == NO_ERROR:
            lowest.append(min(row))
            continue
        wrong += 1
        before = min(row[:error], default=math.inf)
        if row[error] < before:
            opens.append(row[error])
            closes.append(before)
    if not wrong or not lowest:
        raise ValueError("choosing a threshold needs scored solutions with and without an error")
    opens, closes, lowest = (np.sort(np.asarray(values, dtype=float)) for values in (opens, closes, lowest))
    edges, candidates = _between(np.concatenate([opens, closes, lowest]))
    found = np.searchsorted(opens, candidates) - np.searchsorted(closes, candidates)
    kept = len(lowest) - np.searchsorted(lowest, candidates)
    return _best(harmonic_mean(found / wrong, kept / len(lowest)), edges, candidates)


def error_f1(predictions: Sequence[int | None], errors: Sequence[int]) -> dict:
    """ProcessBench's measures (arXiv:2412.06559): `error_accuracy`, the share of solutions with an error whose first
    error was found exactly, `correct_accuracy`, the share of those without one in which none was found, and `f1`,
    their harmonic mean.

    None for a share of nothing, and then for F1.
    """
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for prediction, error in zip(predictions, errors, strict=True):
        hits[error == NO_ERROR].append(prediction == error)
    on_wrong, on_right = (sum(found) / len(found) if found else None for found in (hits[False], hits[True]))
    known = on_wrong is not None and on_right is not None
    return {
        "error_accuracy": on_wrong,
        "correct_accuracy": on_right,
        "f1": float(harmonic_mean(on_wrong, on_right)) if known else None,
    }


def step_threshold(scores: Sequence[float], right: Sequence[bool]) -> float:
    """The threshold with the highest PRMScore (see `prm_score`) over T steps; of the best stretches the middle of the
    widest.

    Raises ValueError where right and wrong steps are not both there.
    """
    values, labels = np.asarray(scores, dtype=float), np.asarray(right, dtype=bool)
    if labels.all() or not labels.any():
        raise ValueError("choosing a threshold needs right and wrong steps")
    edges, candidates = _between(values)
    counts = [np.sort(values[labels]), np.sort(values[~labels])]
    true_positive, false_positive = (len(each) - np.searchsorted(each, candidates, side="right") for each in counts)
    matrix = np.stack([true_positive, false_positive, len(counts[0]) - true_positive, len(counts[1]) - false_positive])
    return _best(prm_score(*matrix)["prm_score"], edges, candidates)


def prm_score(true_positive, false_positive, false_negative, true_negative) -> dict:
    """PRMBench's measures (arXiv:2501.03124) from counts of steps, positive = judged right; elementwise on arrays.

        f1          = 2 TP / (2 TP + FP + FN)         right steps as the class that is looked for
        negative_f1 = 2 TN / (2 TN + FN + FP)         wrong steps as that class
        prm_score   = (f1 + negative_f1) / 2

    0 where a class is never judged right; nan where it neither occurs nor is predicted, and then for the score.
    """
    tp, fp, fn, tn = (
        np.asarray(count, dtype=float) for count in (true_positive, false_positive, false_negative, true_negative)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        f1, negative = 2 * tp / (2 * tp + fp + fn), 2 * tn / (2 * tn + fn + fp)
    return {"f1": f1, "negative_f1": negative, "prm_score": (f1 + negative) / 2}


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


def auc_with_interval(
    scores: Sequence[float], right: Sequence[bool], questions: Sequence[str], *, seed: int = 0, draws: int = 500
) -> dict:
    """`auc`, the chance that a right step scores above a wrong one (see `metrics.roc_auc`), with its `interval`.

    T scores, labels and questions they belong to. None where one class is empty.
    """
    value = roc_auc(scores, right)
    if value is None:
        return {"auc": None, "interval": None}
    labels = np.asarray(right, dtype=bool)
    _, place = np.unique(np.asarray(scores, dtype=float), return_inverse=True)
    _, owner = np.unique(np.asarray(questions), return_inverse=True)
    count, levels, found = owner.max() + 1, place.max() + 1, []
    generator = np.random.default_rng(seed)
    for _ in range(draws):
        weights = np.bincount(generator.integers(0, count, size=count), minlength=count)[owner]
        positive = np.bincount(place, weights * labels, levels)
        negative = np.bincount(place, weights * ~labels, levels)
        pairs = positive.sum() * negative.sum()
        if pairs:
            found.append((positive * (np.cumsum(negative) - negative / 2)).sum() / pairs)
    return {"auc": value, "interval": _interval(found)}


def calibration(
    scores: Sequence[float], right: Sequence[bool], questions: Sequence[str], *, bins: int = 10, seed: int = 0
) -> dict | None:
    """How far scores are probabilities that a step is right, over T steps with the questions they belong to.

        brier = (1/T) sum_t (s_t - y_t)^2                                        (Brier 1950)
        ece   = sum_b |B_b|/T * |mean of y in B_b - mean of s in B_b|            (Guo et al. 2017, arXiv:1706.04599)

    over `bins` bins of equal width, the last one closed. `reliability` lists the bins that are not empty: `low`,
    `high`, `count`, `mean_score`, `right` (share of right steps) and its `interval`. ECE has no interval: resampling
    raises it.
    None for no step, and where a score lies outside [0, 1] and is no probability.
    """
    values, labels = np.asarray(scores, dtype=float), np.asarray(right, dtype=float)
    if not len(values) or values.min() < 0 or values.max() > 1:
        return None
    place = np.minimum((values * bins).astype(int), bins - 1)
    squares = by_question(questions, (values - labels) ** 2, np.ones_like(values))
    reliability = []
    for index in range(bins):
        inside = place == index
        if inside.any():
            columns = by_question(np.asarray(questions)[inside], labels[inside], np.ones(inside.sum()))
            reliability.append(
                {
                    "low": index / bins,
                    "high": (index + 1) / bins,
                    "count": int(inside.sum()),
                    "mean_score": float(values[inside].mean()),
                    "right": float(labels[inside].mean()),
                    "interval": interval_of(columns, _ratio, seed=seed),
                }
            )
    gaps = [row["count"] * abs(row["right"] - row["mean_score"]) for row in reliability]
    return {
        "brier": float(((values - labels) ** 2).mean()),
        "brier_interval": interval_of(squares, _ratio, seed=seed),
        "ece": math.fsum(gaps) / len(values),
        "steps": len(values),
        "reliability": reliability,
    }


def by_question(questions: Sequence[str], *columns: Sequence[float]) -> np.ndarray:
    """Sums of the columns per question, (Q, C)."""
    _, owner = np.unique(np.asarray(questions), return_inverse=True)
    return np.stack([np.bincount(owner, np.asarray(column, dtype=float)) for column in columns], axis=1)


def interval_of(
    columns: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float] | None:
    """95% interval of a statistic of sums over questions.

    `columns`: (Q, C) addends of each question; `statistic`: (draws, C) sums -> (draws,) values. Draws without a finite
    value are left out; None where none has one.
    """
    count = len(columns)
    if not count:
        return None
    picks = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = statistic(picks @ columns)
    return _interval(values[np.isfinite(values)])


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]


def _interval(values) -> tuple[float, float] | None:
    return tuple(float(bound) for bound in np.quantile(values, [0.025, 0.975])) if len(values) else None


def _between(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct finite values with one more on either side, and the middles between neighbours."""
    edges = np.unique(values[np.isfinite(values)])
    edges = np.concatenate([[edges[0] - 1e-6], edges, [edges[-1] + 1e-6]])
    return edges, (edges[1:] + edges[:-1]) / 2


def _best(measure: np.ndarray, edges: np.ndarray, candidates: np.ndarray) -> float:
    best = np.flatnonzero(measure >= np.nanmax(measure) - 1e-12)
    widths = np.diff(edges)[best]
    return float(candidates[best[np.argmax(widths)]])
