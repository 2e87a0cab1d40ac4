"""What a PRM's numbers mean: its scores -> step scores in [0, 1], which shapings, values of states and logs go by."""

import math
from collections.abc import Callable, Sequence


def _logistic(score: float) -> float:
    return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))


# Name -> smallest and largest score, and the score as a probability.
SCORE_RANGES: dict[str, tuple[float, float, Callable[[float], float]]] = {
    "probability": (0.0, 1.0, lambda score: score),
    "signed": (-1.0, 1.0, lambda score: (score + 1) / 2),
    "logit": (-math.inf, math.inf, _logistic),
}
_ROUNDING = 1e-6


def as_probabilities(scores: Sequence[float], name: str) -> list[float]:
    """The scores of one response's steps in [0, 1]. `probability`: as they come; `signed`: p(+) - p(-), as PURE's PRM
    gives; `logit`: any number, as an implicit PRM or a raw value head gives, by the logistic function.

    Raises ValueError for a missing or NaN score and for one outside the range.
    """
    lowest, highest, convert = SCORE_RANGES[name]
    for place, score in enumerate(scores, start=1):
        if score is None or not lowest - _ROUNDING <= score <= highest + _ROUNDING:
            raise ValueError(
                f"--prm.score_range {name}: the PRM gave step {place} of {len(scores)} the score {score}, "
                f"expected {lowest:g} to {highest:g}; choose one of {', '.join(SCORE_RANGES)}"
            )
    return [min(max(convert(score), 0.0), 1.0) for score in scores]
