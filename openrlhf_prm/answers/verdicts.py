"""Rewards of responses as verdicts: right or not. Shapes: B responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def are_right(scores: torch.Tensor, turns: torch.Tensor, right_from: float | None = None) -> torch.Tensor:
    """(B,) scores, else outcome rewards, and numbers of turns -> (B,) verdicts: `--process_reward.right_from`, without
    it above 0.5 for one turn and 1 (but for rounding) for several, because the host sums an agent's rewards over turns.
    """
    if right_from is not None:
        return scores >= right_from
    return (scores > 0.5) & ((turns < 2) | (scores >= 1.0 - 1e-6))
