"""One number for a whole solution from its step scores.

    min   min_i s_i          the weakest step decides (Lightman et al. 2023; Math-Shepherd, arXiv:2312.08935)
    prod  prod_i s_i         probability that every step is right, if steps were independent (Lightman et al. 2023)
    last  s_S                the last step's score, read as the value of the whole solution
    mean  (1/S) sum_i s_i    RLHFlow's choice

Scores are probabilities in [0, 1]; with one step all four agree. An empty list has no value under any of them.
"""

import math
from collections.abc import Callable


def _require_steps(name: str, step_scores: list[float]) -> list[float]:
    if not step_scores:
        raise ValueError(f"score aggregation {name!r} needs at least one step score, got an empty list")
    return step_scores


def minimum(step_scores: list[float]) -> float:
    """Smallest step score. Raises `ValueError` on an empty list."""
    return min(_require_steps("min", step_scores))


def product(step_scores: list[float]) -> float:
    """Product of the step scores. Raises `ValueError` on an empty list."""
    return math.prod(_require_steps("prod", step_scores))


def last(step_scores: list[float]) -> float:
    """Score of the last step. Raises `ValueError` on an empty list."""
    return _require_steps("last", step_scores)[-1]


def mean(step_scores: list[float]) -> float:
    """Arithmetic mean of the step scores. Raises `ValueError` on an empty list."""
    return math.fsum(_require_steps("mean", step_scores)) / len(step_scores)


SCORE_AGGREGATIONS: dict[str, Callable[[list[float]], float]] = {
    "min": minimum,
    "prod": product,
    "last": last,
    "mean": mean,
}
"""Aggregation name -> function from the step scores of one solution to its score."""
