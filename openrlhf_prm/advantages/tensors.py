"""What advantage estimators are made of: sums over later steps, baselines, whitening. Shapes: B responses, S steps and
T tokens of a response; G responses per question, one number or, where responses were left out, one for each question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def spread_over_tokens(values: torch.Tensor, step_ends: torch.Tensor) -> torch.Tensor:
    """(S,) values of steps -> (T,) values of tokens: each token gets its step's value."""
    return values.repeat_interleave(step_ends.diff(prepend=step_ends.new_zeros(1)))


def mean_of_others(values: torch.Tensor, group_size: int | list[int]) -> torch.Tensor:
    """(B,) -> (B,) means over the other responses of the group; 0 for a group of one."""
    import torch

    if isinstance(group_size, int):
        groups = values.reshape(-1, group_size)
        return ((groups.sum(-1, keepdim=True) - groups) / max(group_size - 1, 1)).reshape(-1)
    return torch.cat([(group.sum() - group) / max(len(group) - 1, 1) for group in values.split(group_size)])


def agrees(values: torch.Tensor) -> bool:
    """Whether numbers are the same but for rounding (of float32), so that their deviation is no scale; fewer than two
    always are.
    """
    return len(values) < 2 or bool(values.std() <= 1e-6 * max(1.0, float(values.mean().abs())))


def standardised(values: torch.Tensor, std_norm: bool = True) -> torch.Tensor:
    """(G,) -> (values - mean) / std, undivided without `std_norm`; 0 where they agree, as one alone does."""
    if agrees(values):
        return values * 0
    centred = values - values.mean()
    return centred / values.std() if std_norm else centred


def against_others(values: torch.Tensor, std_norm: bool = True) -> torch.Tensor:
    """(G,) -> (values - mean of the others) / std, undivided without `std_norm`; 0 where they agree, one alone as it
    is.
    """
    if len(values) > 1 and agrees(values):
        return values * 0
    compared = values - mean_of_others(values, len(values))
    return compared / values.std() if std_norm and len(values) > 1 else compared


def length_adaptive_lambda(lengths: torch.Tensor, alpha: float) -> torch.Tensor:
    """(B,) tokens -> (B,) lambda = 1 - 1 / (alpha * length) of the policy's GAE: VAPO (arXiv:2504.05118, alpha 0.05).

    The weights lambda^k of what later tokens did then sum to alpha * length. Up to 1 / alpha tokens: 0.
    """
    return (1 - 1 / (alpha * lengths.float().clamp(min=1.0))).clamp(min=0.0)


def whitened(
    advantages: list[torch.Tensor], counted: list[bool], masks: list[torch.Tensor] | None = None
) -> list[torch.Tensor]:
    """(A - mean) / std over the tokens of the counted responses; the others are divided by the same std.

    masks: (T_b,) bool each; only these tokens count, all of them where there are none. Counted tokens that agree get 0
    and the others keep what they have; fewer than two counted tokens: nothing changes.
    """
    import torch

    masks = masks or [torch.ones(len(tokens), dtype=torch.bool) for tokens in advantages]
    rows = zip(advantages, counted, masks, strict=True)
    chosen = [tokens[mask] for tokens, counts, mask in rows if counts]
    joined = torch.cat(chosen) if chosen else torch.empty(0)
    if len(joined) < 2:
        return advantages
    if agrees(joined):
        return [tokens * 0 if counts else tokens for tokens, counts in zip(advantages, counted, strict=True)]
    mean, scale = joined.mean(), joined.std()
    return [(tokens - mean * counts) / scale for tokens, counts in zip(advantages, counted, strict=True)]


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
