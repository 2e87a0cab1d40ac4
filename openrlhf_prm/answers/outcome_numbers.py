"""Outcome rewards as numbers, whatever shape a reward function, a server or an agent gives them."""

import math

_SHAPES = "a number, or a list, array or tensor of one"


def outcome_number(value: object, source: str, prompt: str) -> float | int:
    """The number in a reward: itself, or the only element of a list, tuple, array or tensor.

    Raises ValueError, naming the flag in `source` and the prompt, for anything else and for what is not finite: one
    such outcome would make advantages of NaN for a whole group.
    """
    number = value
    while isinstance(number, list | tuple) and len(number) == 1:
        number = number[0]
    if getattr(number, "size", None) is not None and hasattr(number, "item"):
        elements = number.numel() if hasattr(number, "numel") else number.size
        number = number.item() if elements == 1 else None
    if not isinstance(number, int | float):
        raise ValueError(f"{source} gave the reward {value!r} for the prompt {prompt!r}, expected {_SHAPES}")
    if not math.isfinite(number):
        raise ValueError(f"{source} gave the reward {number} for the prompt {prompt!r}, expected a finite number")
    return number
