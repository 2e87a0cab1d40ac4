"""The tensors an advantage estimator sees. Shapes: B responses, G responses per question, S_b steps, T_b tokens of
response b.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class StepBatch:
    """A rollout batch in question order: the G responses of a question stand together, so B is a multiple of G.

    process_rewards: B tensors (S_b,), after shaping. step_ends: B tensors (S_b,) of token counts, strictly
    increasing: step k of response b is tokens step_ends[k-1]..step_ends[k]-1, and the last end is T_b. Every response
    has a step. outcome_rewards: (B,), penalties included.
    """

    process_rewards: list[torch.Tensor]
    step_ends: list[torch.Tensor]
    outcome_rewards: torch.Tensor
    group_size: int

    def __post_init__(self):
        batch = len(self.outcome_rewards)
        if not len(self.process_rewards) == len(self.step_ends) == batch:
            raise ValueError(
                f"step rewards must align with responses: got {len(self.process_rewards)} reward rows, "
                f"{len(self.step_ends)} span rows, expected {batch}"
            )
        if self.group_size < 1 or batch % self.group_size:
            raise ValueError(f"{batch} responses do not form groups of {self.group_size}")
        for index, (rewards, ends) in enumerate(zip(self.process_rewards, self.step_ends, strict=True)):
            if len(rewards) != len(ends):
                raise ValueError(f"response {index} has {len(rewards)} step rewards, expected {len(ends)}")
            if not len(ends):
                raise ValueError(f"response {index} has no step; a response of at least one token has at least one")


def spread_over_tokens(values: torch.Tensor, step_ends: torch.Tensor) -> torch.Tensor:
    """(S,) values of steps -> (T,) values of tokens: each token gets its step's value."""
    return values.repeat_interleave(step_ends.diff(prepend=step_ends.new_zeros(1)))


def discounted(rewards: torch.Tensor, lambd: float) -> torch.Tensor:
    """(S,) rewards -> (S,) returns G_k = sum_{l >= k} lambd^(l-k) r_l."""
    returns = rewards.clone()
    for k in range(len(rewards) - 2, -1, -1):
        returns[k] += lambd * returns[k + 1]
    return returns
