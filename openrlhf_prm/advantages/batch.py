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

    process_rewards: B tensors (S_b,), after shaping; zeros for an estimator that does not need "step_rewards".
    step_ends: B tensors (S_b,) of token counts, strictly increasing: step k of response b is tokens
    step_ends[k-1]..step_ends[k]-1, and the last end is T_b. Every response has a step. outcome_rewards: (B,), penalties
    included.

    What an estimator `needs` beyond that: "tokens": token_ids, the responses' tokens. "branch_values": values, B
    tensors (S_b,), V of the state before each step on the scale of the outcome (the first, V of the question, may be
    NaN: the group tells it), None for a response whose states were not valued; and penalties (B,), the part of
    outcome_rewards that is not the outcome. "token_probabilities": probabilities, B tensors (T_b,).
    """

    process_rewards: list[torch.Tensor]
    step_ends: list[torch.Tensor]
    outcome_rewards: torch.Tensor
    group_size: int
    token_ids: list[list[int]] | None = None
    values: list[torch.Tensor | None] | None = None
    penalties: torch.Tensor | None = None
    probabilities: list[torch.Tensor] | None = None

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


def leave_one_out(values: torch.Tensor, group_size: int) -> torch.Tensor:
    """(B,) -> (B,) means over the other responses of the group; 0 for a group of one."""
    groups = values.reshape(-1, group_size)
    return ((groups.sum(-1, keepdim=True) - groups) / max(group_size - 1, 1)).reshape(-1)


def agrees(values: torch.Tensor) -> bool:
    """Whether numbers are the same but for rounding (of float32), so that their deviation is no scale; fewer than two
    always are.
    """
    return len(values) < 2 or bool(values.std() <= 1e-6 * max(1.0, float(values.mean().abs())))


def whitened(advantages: list[torch.Tensor], counted: list[bool]) -> list[torch.Tensor]:
    """(A - mean) / std over the tokens of the counted responses; the others are divided by the same std.

    Counted tokens that agree get 0 and the others keep what they have; fewer than two counted tokens: nothing changes.
    """
    import torch

    chosen = [own for own, counts in zip(advantages, counted, strict=True) if counts]
    joined = torch.cat(chosen) if chosen else torch.empty(0)
    if len(joined) < 2:
        return advantages
    if agrees(joined):
        return [own * 0 if counts else own for own, counts in zip(advantages, counted, strict=True)]
    mean, scale = joined.mean(), joined.std()
    return [(own - mean * counts) / scale for own, counts in zip(advantages, counted, strict=True)]


def discounted(rewards: torch.Tensor, lambd: float) -> torch.Tensor:
    """(S,) rewards -> (S,) returns G_k = sum_{l >= k} lambd^(l-k) r_l."""
    returns = rewards.clone()
    for k in range(len(rewards) - 2, -1, -1):
        returns[k] += lambd * returns[k + 1]
    return returns


def weigh_negative(advantages: torch.Tensor, weight: float) -> torch.Tensor:
    """Advantages with the negative ones multiplied by `weight` in 0..1; 1 changes nothing.

    To make a token likelier says what to write instead of all else; to make it less likely does not, and its
    probability may go to what the policy had no reason to write (arXiv:2503.14286 tapers such updates for that reason).
    A critic's targets are not weighed.
    """
    return advantages.where(advantages > 0, weight * advantages)
