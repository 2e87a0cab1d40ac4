"""SCoRe's objective (arXiv:2409.12917): which attempt's tokens are paid for what. Tensors in, tensors out.

    stage 1:  max E[ r(y_2) - beta2 KL(pi(.|x_1) || ref) ]
    stage 2:  max E[ sum_i r(y_i) + alpha (r(y_2) - r(y_1)) - beta1 sum_i KL(pi(.|x_i) || ref) ]

Each attempt's tokens get that attempt's reward only, and KL of no other attempt. The bonus is the second attempt's
alone: on the first it would pay for failing first. With more attempts the i-th has alpha (r(y_i) - r(y_(i-1))); these
add up to alpha (r(y_N) - r(y_1)).

Shapes: N attempts, B episodes, G of them to a question, which stand together; A positions of an episode.
"""

from collections.abc import Sequence

import torch

from openrlhf_prm.advantages.host_baselines import outcomes_less_baseline


def improvement(outcomes: torch.Tensor) -> torch.Tensor:
    """(N, B) outcomes -> (N, B), what each attempt has over the one before; 0 for the first."""
    return outcomes.diff(dim=0, prepend=outcomes[:1])


def attempt_advantages(
    rewards: torch.Tensor,
    outcomes: torch.Tensor,
    group_size: int,
    *,
    stage: int,
    alpha: float,
    clip: tuple[float, float] | None = None,
) -> torch.Tensor:
    """(N, B) advantages, less the mean of the same attempt of the group's others (RLOO, arXiv:2402.14740).

    rewards: weights and penalties included. outcomes: as they came, for the bonus. clip: bounds of rewards less their
    baseline, as the host's `--reward.clip_range` has them; the bonus is added behind, or the bounds would take alpha's
    scale away, as a group's deviation would. Stage 1 pays all attempts but the first. Groups that agree get exactly 0.
    """
    advantages = torch.stack([outcomes_less_baseline("rloo", attempt, group_size) for attempt in rewards])
    if clip:
        advantages = advantages.clamp(*clip)
    if stage == 1:
        advantages[0] = 0.0
        return advantages
    gained = [outcomes_less_baseline("rloo", attempt, group_size) for attempt in improvement(outcomes)]
    return advantages + alpha * torch.stack(gained)


def kl_coefficients(attempts: int, *, stage: int, beta1: float, beta2: float) -> list[float]:
    """N coefficients of the KL term."""
    return [beta1] * attempts if stage == 2 else [beta2, *[0.0] * (attempts - 1)]


def attempt_of_positions(action_mask: torch.Tensor, ends: Sequence[int]) -> torch.Tensor:
    """(A,) action mask of an episode, and the counts of own tokens at which its N attempts end -> (A,) the attempt of
    each position: what stands before an attempt is its, what stands behind the last is the last one's. An attempt
    without tokens has no position.
    """
    before = action_mask.long().cumsum(-1) - action_mask.long()
    bounds = torch.tensor(ends, dtype=torch.long)
    return torch.searchsorted(bounds, before, right=True).clamp(max=len(ends) - 1)
