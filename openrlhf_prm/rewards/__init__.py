"""Reward shapings: step scores of a response (S,) -> process rewards (S,), one on the last token of each step.

A shaping is a frozen dataclass (its fields are its options, `--process_reward.<field>`) with `needs`:

- nothing: it is called with the scores of one response and returns that response's process rewards;
- "group": it is called with the scores of a question's G responses and `correct` (G,), and returns G process
  rewards, None for a response that is to be left out of training;
- "probability": its scores are p in [0, 1] whatever `--process_reward.score_scale` says;
- "log_ratios": it has no scores; it is called with the token log-ratios of an online PRM and the step ends of one
  response, and returns rewards and where they stand.

Scores come in signed otherwise, r = 2p - 1 in [-1, 1], unless `--process_reward.score_scale probability` asks for p
itself. To add one: a file with the dataclass, a line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrlhf_prm.rewards.clip import Clip
from openrlhf_prm.rewards.clip_delta import ClipDelta
from openrlhf_prm.rewards.consistency_filter import ConsistencyFilter
from openrlhf_prm.rewards.delta import Delta
from openrlhf_prm.rewards.gate import Gate
from openrlhf_prm.rewards.implicit import Implicit
from openrlhf_prm.rewards.min_form import MinForm
from openrlhf_prm.rewards.potential import Potential
from openrlhf_prm.rewards.progress import Progress
from openrlhf_prm.rewards.sum_form import SumForm
from openrlhf_prm.rewards.verified_potential import VerifiedPotential

if TYPE_CHECKING:
    import torch

REWARD_SHAPINGS = {
    "sum": SumForm,
    "min_form": MinForm,
    "clip": Clip,
    "delta": Delta,
    "clip_delta": ClipDelta,
    "progress": Progress,
    "gate": Gate,
    "potential": Potential,
    "verified_potential": VerifiedPotential,
    "filter": ConsistencyFilter,
    "implicit": Implicit,
}

# How a step score p in [0, 1] enters the shaping.
SCORE_SCALES = {"signed": lambda scores: 2 * scores - 1, "probability": lambda scores: scores}


def shape(
    shaping, scores: list[torch.Tensor], correct: torch.Tensor, group_size: int, score_scale: str = "signed"
) -> list[torch.Tensor | None]:
    """B step score tensors (S_b,), probabilities, in question order, and correct (B,) -> B process reward tensors
    (S_b,); None for a response that the shaping leaves out.
    """
    scale = SCORE_SCALES["probability" if "probability" in shaping.needs else score_scale]
    scores = [scale(own) for own in scores]
    if "group" not in shaping.needs:
        return [shaping(own) for own in scores]
    starts = range(0, len(scores), group_size)
    groups = [shaping(scores[i : i + group_size], correct[i : i + group_size]) for i in starts]
    return [rewards for group in groups for rewards in group]
