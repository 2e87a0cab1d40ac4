"""One number for a whole solution from its step scores.

    min   min_i s_i          the weakest step decides (Lightman et al. 2023; Math-Shepherd, arXiv:2312.08935)
    prod  prod_i s_i         probability that every step is right, if steps were independent (Lightman et al. 2023)
    last  s_S                the last step's score, read as the value of the whole solution
    mean  (1/S) sum_i s_i    RLHFlow's choice

With one step all four agree. An empty list has no value under any of them. `prod` is for probabilities: of signed
scores, two bad steps would make a good solution.
"""

import math
from collections.abc import Callable, Iterable

_INSTEAD = "choose min, last or mean"


def _require_steps(name: str, step_scores: list[float]) -> list[float]:
    if not step_scores:
        raise ValueError(f"score aggregation {name!r} needs at least one step score, got an empty list")
    return step_scores


def minimum(step_scores: list[float]) -> float:
    """Smallest step score. Raises `ValueError` on an empty list."""
    return min(_require_steps("min", step_scores))


def product(step_scores: list[float]) -> float:
    """Product of the step scores. Raises `ValueError` on an empty list, and for a score outside [0, 1]."""
    if outside := [score for score in _require_steps("prod", step_scores) if not 0 <= score <= 1]:
        raise ValueError(f"score aggregation 'prod' needs scores in [0, 1], got {outside[0]:g}; {_INSTEAD}")
    return math.prod(step_scores)


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


def applicable_aggregations(step_scores: Iterable[float | None]) -> list[str]:
    """Names of the aggregations that mean something for scores such as these."""
    probabilities = all(0 <= score <= 1 for score in step_scores if score is not None)
    return [name for name in SCORE_AGGREGATIONS if probabilities or name != "prod"]


def require_aggregation(name: str | None, score_range: tuple[float, float]) -> None:
    """`ValueError` where the scores of a PRM, which lie in `score_range`, have no such aggregate; None is none."""
    low, high = score_range
    if name not in (None, *applicable_aggregations(score_range)):
        raise ValueError(
            f"aggregation {name!r} needs scores in [0, 1], this PRM's lie in [{low:g}, {high:g}]; {_INSTEAD}"
        )
