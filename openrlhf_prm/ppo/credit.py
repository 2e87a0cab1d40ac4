"""What is credited: steps or turns, and where the rewards stand that an agent pays turn by turn.

Shapes: B responses, U_b turns of response b, S_b places (steps, or tokens) where its process rewards stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrlhf_prm.options import Options, option

if TYPE_CHECKING:
    import torch

    from openrlhf_prm.ppo.rollout.records import StepRecord


@dataclass(frozen=True, kw_only=True)
class CreditOptions(Options):
    """`--credit.<field>`: turns of an agent (`--train.agent_func_path`)."""

    unit: str = option(
        "step", "what is scored and credited: reasoning steps within turns, or whole turns", choices=("step", "turn")
    )
    hide_observations: bool = option(False, "the PRM does not read what the environment wrote before a turn")
    turn_rewards: bool = option(
        False, "what the agent pays for a turn stands on the turn's last token, instead of in the outcome at the end"
    )
    turn_coef: float = option(1.0, "weight of the turns' rewards", read_with="turn_rewards")


@dataclass(frozen=True)
class TurnRewards:
    """rewards: B tensors (U_b,), weighted. ends: B tensors (U_b,) of token counts at which the turns end. total: (B,),
    what the turns of a response were paid together, unweighted, which its outcome holds.
    """

    rewards: list[torch.Tensor]
    ends: list[torch.Tensor]
    total: torch.Tensor

    def at(self, places: list[torch.Tensor]) -> list[torch.Tensor]:
        """B tensors (S_b,): each turn's reward at the place where the turn ends, 0 elsewhere. Every turn must end at
        one of the places, which rise.
        """
        return [
            at_places(rewards, ends, spots)
            for rewards, ends, spots in zip(self.rewards, self.ends, places, strict=True)
        ]


def at_places(rewards: torch.Tensor, ends: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(U,) rewards of turns that end at `ends` -> (S,) rewards at `places`."""
    import torch

    spots = torch.searchsorted(places, ends)
    return torch.zeros(len(places)).index_add(0, spots, rewards)


def turn_rewards(records: Sequence[StepRecord], coef: float) -> TurnRewards:
    """What the agent paid turn by turn, times `coef`."""
    import torch

    paid = [torch.tensor(record.turn_rewards or (), dtype=torch.float32) for record in records]
    ends = [torch.tensor(record.turn_ends if record.turn_rewards else (), dtype=torch.long) for record in records]
    total = torch.stack([rewards.sum() for rewards in paid])
    return TurnRewards([coef * rewards for rewards in paid], ends, total)


def left_of_outcome(outcomes: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """(B,) what the agent paid beyond its turns. Its rounding is no reward: 0.3 three times is not quite 0.9, and a
    group's deviation would make that much of it.
    """
    left = outcomes - total
    scale = outcomes.abs().maximum(total.abs()).clamp(min=1.0)
    return left.where(left.abs() > 1e-6 * scale, 0.0)
