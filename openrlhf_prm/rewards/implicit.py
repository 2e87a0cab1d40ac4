"""Implicit process rewards, learned online from outcomes (PRIME, arXiv:2502.01456)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.options import option
from openrlhf_prm.rewards.shaping import RewardShaping, ShapingNeed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Implicit(RewardShaping):
    """r_t = beta * log(pi_phi(y_t | y_<t) / pi_ref(y_t | y_<t)), a reward on every token (`granularity` "token") or
    summed over each step ("step").

    pi_phi is the PRM, a language model that `outcome_loss` trains on the rollouts' own outcomes, pi_ref where it
    started. beta * sum of all log-ratios is the PRM's logit that the response is right, so the rewards of a response
    sum to it; beta 0.05 is the paper's. A PRM that has not been trained yet equals its reference: 0 everywhere.
    """

    needs: ClassVar[frozenset[ShapingNeed]] = frozenset({ShapingNeed.LOG_RATIOS})
    beta: float = option(0.05, "reward per unit of log-ratio", above=0)
    granularity: str = option("token", "what gets a reward", choices=("token", "step"))

    def __call__(self, log_ratios: torch.Tensor, step_ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-ratios (T,) of a response and its step ends (S,) -> rewards and the token counts at which they stand:
        both (T,), or (S,) by steps. Raises ValueError where the last step does not end with the response.
        """
        import torch

        if not len(log_ratios) and not len(step_ends):
            return log_ratios, step_ends
        if not len(step_ends) or int(step_ends[-1]) != len(log_ratios):
            last = int(step_ends[-1]) if len(step_ends) else 0
            raise ValueError(f"log-ratios must align with steps: got {len(log_ratios)} tokens, expected {last}")
        rewards = self.beta * log_ratios
        if self.granularity == "token":
            return rewards, torch.arange(1, len(rewards) + 1)
        sums = rewards.cumsum(-1)[step_ends - 1]
        return sums.diff(prepend=sums.new_zeros(1)), step_ends


def outcome_loss(log_ratios: torch.Tensor, correct: torch.Tensor, beta: float) -> torch.Tensor:
    """Cross-entropy of sigmoid(beta * sum of log-ratios) against the outcomes, one loss per response.

    log_ratios: (B, A), 0 outside the response. correct: (B,), 1 or 0. -> (B,). log 2 for an untrained PRM.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(beta * log_ratios.sum(-1), correct.float(), reduction="none")
