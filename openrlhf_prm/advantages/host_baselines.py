"""What the host's estimators do to a scalar reward, done to step rewards.

OpenRLHF subtracts a baseline from the reward of a response before it spreads it over tokens. Step rewards get the
same treatment, over the steps of the group instead of its responses, so that with one step per response nothing
differs from the host (GRPO's process supervision, arXiv:2402.03300, section 4.1.3). Keys are the host's
`--algo.advantage.estimator` values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrlhf_prm.advantages.tensors import agrees

if TYPE_CHECKING:
    import torch

# (S_b,) step rewards of the responses of a group.
RewardRows = list["torch.Tensor"]


def unchanged(group: RewardRows) -> RewardRows:
    """No baseline: a critic or the host's own whitening does the work."""
    return group


def group_mean(group: RewardRows) -> RewardRows:
    """r - mean of all step rewards of the group. No step at all: nothing to do."""
    steps = _joined(group)
    return [rewards - steps.mean() for rewards in group] if len(steps) else group


def group_score(group: RewardRows) -> RewardRows:
    """(r - mean) / (std + 1e-9) over all step rewards of the group; 0 where they agree, as a single one does."""
    steps = _joined(group)
    if agrees(steps):
        return [rewards * 0 for rewards in group]
    return [(rewards - steps.mean()) / (steps.std() + 1e-9) for rewards in group]


def less_mean_of_others_steps(group: RewardRows) -> RewardRows:
    """r - mean of all step rewards of the other responses; where the others have no step, r itself."""
    steps = _joined(group)
    adjusted = []
    for rewards in group:
        others = len(steps) - len(rewards)
        adjusted.append(rewards - (steps.sum() - rewards.sum()) / others if others else rewards)
    return adjusted


@dataclass(frozen=True)
class HostBaseline:
    """adjust: what is done to step rewards. over_batch: at once over the whole batch, not question by question.
    divides: by their deviation, which takes a weight of the rewards out again.
    """

    adjust: Callable[[RewardRows], RewardRows]
    over_batch: bool = False
    divides: bool = False


HOST_BASELINES = {
    "gae": HostBaseline(unchanged),
    "reinforce": HostBaseline(unchanged),
    "reinforce_baseline": HostBaseline(group_mean),
    "dr_grpo": HostBaseline(group_mean),
    "rloo": HostBaseline(less_mean_of_others_steps),
    "group_norm": HostBaseline(group_score, divides=True),
    "flash_reinforce": HostBaseline(group_mean, over_batch=True),
}


def apply_host_baseline(estimator: str, process_rewards: RewardRows, group_size: int) -> RewardRows:
    """B tensors (S_b,) of step rewards -> the same with the estimator's baseline taken off."""
    baseline = HOST_BASELINES[estimator]
    width = len(process_rewards) if baseline.over_batch else group_size
    adjusted: RewardRows = []
    for start in range(0, len(process_rewards), width):
        adjusted += baseline.adjust(process_rewards[start : start + width])
    return adjusted


def _joined(group: RewardRows) -> torch.Tensor:
    import torch

    return torch.cat(group)
