"""The threshold on step scores with which a benchmark's measure is highest. Pure functions.

A measure changes only where the threshold passes a score, so the stretches between neighbouring scores are tried, and
of the best ones the middle of the widest is taken.
"""

import math
from collections.abc import Sequence

import numpy as np

from openrlhf_prm.measures.steps import NO_ERROR, harmonic_mean, prm_score


def error_threshold(scores: Sequence[Sequence[float | None]], errors: Sequence[int]) -> float:
    """The threshold with the highest ProcessBench F1 (`measures.steps.error_f1`) on solutions whose first error is
    known.

    `scores`: S_i scores each; `errors`: index of the first error or -1. A solution with first error e is judged right
    for thresholds in (s_e, min_{j<e} s_j], one without error for those up to min_j s_j. Solutions with a step without
    a score are left out. Raises ValueError where solutions with and without an error are not both there.
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
    caught = np.searchsorted(opens, candidates) - np.searchsorted(closes, candidates)
    kept = len(lowest) - np.searchsorted(lowest, candidates)
    return _best(harmonic_mean(caught / wrong, kept / len(lowest)), edges, candidates)


def step_threshold(scores: Sequence[float], right: Sequence[bool]) -> float:
    """The threshold with the highest PRMScore (`measures.steps.prm_score`) over T steps.

    Raises ValueError where right and wrong steps are not both there.
    """
    values, labels = np.asarray(scores, dtype=float), np.asarray(right, dtype=bool)
    if labels.all() or not labels.any():
        raise ValueError("choosing a threshold needs right and wrong steps")
    edges, candidates = _between(values)
    of_right, of_wrong = np.sort(values[labels]), np.sort(values[~labels])
    true_positive, false_positive = (
        len(ordered) - np.searchsorted(ordered, candidates, side="right") for ordered in (of_right, of_wrong)
    )
    measures = prm_score(true_positive, false_positive, len(of_right) - true_positive, len(of_wrong) - false_positive)
    return _best(measures["prm_score"], edges, candidates)


def _between(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct finite values with one more on either side, and the middles between neighbours."""
    edges = np.unique(values[np.isfinite(values)])
    edges = np.concatenate([[edges[0] - 1e-6], edges, [edges[-1] + 1e-6]])
    return edges, (edges[1:] + edges[:-1]) / 2


def _best(measure: np.ndarray, edges: np.ndarray, candidates: np.ndarray) -> float:
    best = np.flatnonzero(measure >= np.nanmax(measure) - 1e-12)
    widths = np.diff(edges)[best]
    return float(candidates[best[np.argmax(widths)]])
