"""What a reward shaping is, what it may need, and how it is called on a rollout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.options import Options

if TYPE_CHECKING:
    import torch


class ShapingNeed(Enum):
    """How a shaping is called. Without any: with the scores (S,) of one response, for its process rewards (S,). A step
    without visible text has no score but NaN; what is NaN in the rewards is taken as none.
    """

    GROUP = auto()
    """With the scores of a question's G responses and `correct` (G,), for G process rewards; None in place of a
    response that is to be left out of training."""
    PROBABILITY = auto()
    """Scores are p in [0, 1] whatever `--process_reward.score_scale` says."""
    LOG_RATIOS = auto()
    """There are no scores: with the token log-ratios (T,) of an online PRM and the step ends of one response, for
    rewards and where they stand. The shaping has an option `beta`, with which the PRM is trained too."""


@dataclass(frozen=True, kw_only=True)
class RewardShaping(Options):
    """Base of shapings: options as fields, `needs`, and a call that `needs` describes."""

    needs: ClassVar[frozenset[ShapingNeed]] = frozenset()
    pays: ClassVar[bool] = True
    """False where it chooses responses and hands on no process rewards."""

    @property
    def groups(self) -> frozenset[str]:
        """The only groups on which it acts: those whose responses are all "right", all "wrong"; empty for any."""
        return frozenset()

    def conflict(self, samples: int) -> str | None:
        """What of its options has no effect with so many samples per question, beginning with the option's name."""
        return None


# How a step score p in [0, 1] enters the shaping.
SCORE_SCALES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "signed": lambda scores: 2 * scores - 1,
    "probability": lambda scores: scores,
}


def shape(
    shaping: RewardShaping,
    scores: list[torch.Tensor],
    correct: torch.Tensor,
    group_size: int,
    score_scale: str = "signed",
) -> list[torch.Tensor | None]:
    """B step score tensors (S_b,), probabilities, in question order, and correct (B,) -> B process reward tensors
    (S_b,); None for a response that the shaping leaves out.
    """
    scale = SCORE_SCALES["probability" if ShapingNeed.PROBABILITY in shaping.needs else score_scale]
    scaled = [scale(response_scores) for response_scores in scores]
    if ShapingNeed.GROUP not in shaping.needs:
        return [shaping(response_scores) for response_scores in scaled]
    starts = range(0, len(scaled), group_size)
    groups = [shaping(scaled[i : i + group_size], correct[i : i + group_size]) for i in starts]
    return [rewards for group in groups for rewards in group]
