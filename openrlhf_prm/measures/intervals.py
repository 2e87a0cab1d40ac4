"""Means and their 95% intervals. Pure functions on lists.

Responses to one question are not independent, and neither are the steps of one response, so every bootstrap here
draws whole questions. Legend: Q questions, C columns, D draws.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

DRAWS = 2000
Z95 = 1.959963984540054
"""The normal distribution's 97.5% quantile."""


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean; None for no values."""
    return math.fsum(values) / len(values) if values else None


def wilson_interval(right: float, total: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927); it has a width where the share is 0 or 1, and stays inside [0, 1].

        (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)    with p = right/n, n = total

    No trial excludes nothing: (0, 1).
    """
    if total == 0:
        return 0.0, 1.0
    share = right / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    low = 0.0 if right == 0 else (middle - half) / scale  # rounding would leave 1e-17
    high = 1.0 if right == total else (middle + half) / scale
    return low, high


def bootstrap_interval(
    values: Sequence[float], weights: Sequence[float] | None = None, *, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float] | None:
    """95% percentile bootstrap interval of sum(values) / sum(weights) over questions (Efron 1979).

    One entry per question; weights default to one. None for no question. Draws without any weight are left out; None
    where no draw has one.
    """
    if not len(values):
        return None
    numerators = np.asarray(values, dtype=float)
    denominators = np.ones_like(numerators) if weights is None else np.asarray(weights, dtype=float)
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(draws):
        picks = generator.integers(0, len(numerators), size=len(numerators))
        total = denominators[picks].sum()
        if total > 0:
            means.append(numerators[picks].sum() / total)
    return percentile_interval(means)


def share_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float] | None:
    """95% interval of the mean of one share per question: Wilson's where every share is 0 or 1, else the bootstrap's.
    None for no question.
    """
    if len(values) and all(value in (0, 1) for value in values):
        return wilson_interval(math.fsum(values), len(values))
    return bootstrap_interval(values, seed=seed)


def paired_gain(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> dict | None:
    """Mean of after - before over the same questions with its 95% bootstrap interval: {"gain", "interval"}.

    Pairing removes what the questions have in common, so the interval is narrower than the two separate ones suggest.
    None for no question. Raises ValueError for unequal lengths.
    """
    require_aligned(before, after)
    differences = [new - old for old, new in zip(before, after, strict=True)]
    if not differences:
        return None
    return {"gain": mean(differences), "interval": bootstrap_interval(differences, seed=seed)}


def sums_by_question(questions: Sequence[str], *columns: Sequence[float]) -> np.ndarray:
    """Sums of the columns per question, (Q, C)."""
    _, question = np.unique(np.asarray(questions), return_inverse=True)
    return np.stack([np.bincount(question, np.asarray(column, dtype=float)) for column in columns], axis=1)


def interval_of_sums(
    columns: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float] | None:
    """95% percentile bootstrap interval of a statistic of sums over questions.

    `columns`: (Q, C) addends of each question; `statistic`: (D, C) sums -> (D,) values. Draws without a finite value
    are left out; None where none has one.
    """
    count = len(columns)
    if not count:
        return None
    picks = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = statistic(picks @ columns)
    return percentile_interval(values[np.isfinite(values)])


def ratio_of_sums(sums: np.ndarray) -> np.ndarray:
    """The first column over the second, a statistic for `interval_of_sums`."""
    return sums[:, 0] / sums[:, 1]


def percentile_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The middle 95% of values, interpolated; None for no value."""
    return tuple(float(bound) for bound in np.quantile(values, [0.025, 0.975])) if len(values) else None


def require_aligned(left: Sequence, right: Sequence) -> None:
    """Raises ValueError for lists of unequal lengths."""
    if len(left) != len(right):
        raise ValueError(f"lists must be aligned: got {len(left)} and {len(right)} entries")
