"""What the host's estimators do to a scalar reward, done to step rewards.

OpenRLHF subtracts a baseline from the reward of a response before it spreads it over tokens. Step rewards get the
same treatment, over the steps of the group instead of its responses, so that with one step per response nothing
differs from the host (GRPO's process supervision, arXiv:2402.03300, section 4.1.3). Keys are the host's
`--algo.advantage.estimator` values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from openrlhf_prm.advantages.batch import agrees

if TYPE_CHECKING:
    import torch

Group = list["torch.Tensor"]


def unchanged(group: Group) -> Group:
    """No baseline: a critic or the host's own whitening does the work."""
    return group


def group_mean(group: Group) -> Group:
    """r - mean of all step rewards of the group. No step at all: nothing to do."""
    steps = _joined(group)
    return [rewards - steps.mean() for rewards in group] if len(steps) else group


def group_score(group: Group) -> Group:
    """(r - mean) / (std + 1e-9) over all step rewards of the group; 0 where they agree, as a single one does."""
    steps = _joined(group)
    if agrees(steps):
        return [rewards * 0 for rewards in group]
    return [(rewards - steps.mean()) / (steps.std() + 1e-9) for rewards in group]


def leave_one_out(group: Group) -> Group:
    """r - mean of all step rewards of the other responses; where the others have no step, r itself."""
    steps = _joined(group)
    adjusted = []
    for rewards in group:
        others = len(steps) - len(rewards)
        adjusted.append(rewards - (steps.sum() - rewards.sum()) / others if others else rewards)
    return adjusted


# The host's estimator -> what is done to step rewards, and whether over each question's group or over the whole batch.
HOST_BASELINES: dict[str, tuple[Callable[[Group], Group], str]] = {
    "gae": (unchanged, "group"),
    "reinforce": (unchanged, "group"),
    "reinforce_baseline": (group_mean, "group"),
    "dr_grpo": (group_mean, "group"),
    "rloo": (leave_one_out, "group"),
    "group_norm": (group_score, "group"),
    "flash_reinforce": (group_mean, "batch"),
}


def apply_host_baseline(estimator: str, process_rewards: Group, group_size: int) -> Group:
    """B tensors (S_b,) of step rewards -> the same with the estimator's baseline taken off."""
    baseline, scope = HOST_BASELINES[estimator]
    width = group_size if scope == "group" else len(process_rewards)
    adjusted: Group = []
    for start in range(0, len(process_rewards), width):
        adjusted += baseline(process_rewards[start : start + width])
    return adjusted


def _joined(group: Group) -> torch.Tensor:
    import torch

    return torch.cat(group)
