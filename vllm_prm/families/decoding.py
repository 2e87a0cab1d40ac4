"""From the numbers read at a step position to its score. NaN stays NaN, for the caller to refuse."""

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def class_probabilities(raw: Rows, classes: int) -> list[list[float]]:
    """Softmax of each row: (S, C) -> (S, C). `ValueError` for a row of another width than `classes`."""
    return [_softmax(row, classes) for row in raw]


def _softmax(row: Sequence[float], classes: int) -> list[float]:
    if len(row) != classes:
        raise ValueError(f"expected {classes} logits per step, got {len(row)}")
    if not all(math.isfinite(value) for value in row):
        return [math.nan] * classes
    top = max(row)
    weights = [math.exp(value - top) for value in row]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def scalars(raw: Rows) -> list[float]:
    """The one number of each row: (S, 1) -> S. `ValueError` for a row of another width."""
    if wrong := [len(row) for row in raw if len(row) != 1]:
        raise ValueError(f"expected 1 number per step, got {wrong[0]}")
    return [row[0] for row in raw]


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)), without overflow."""
    if value >= 0:
        return 1.0 / (1.0 + math.exp(-value))
    grown = math.exp(value)
    return grown / (1.0 + grown)
