"""Outcome rewards as the host's estimators should see them, where its own baseline would go wrong.

The host compares all G responses of a question, divides by their deviation, and does both in one method. Two things do
not go through it: a group some of whose responses are left out of training, and one whose rewards agree but for
rounding (a constant such as 0.2 that float32 cannot hold), which it divides by that rounding. There we take off the
baseline ourselves (`advantages.host_baselines`), and the host runs with one that changes nothing any more.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from openrlhf.trainer.ppo_utils.experience import Experience

from openrlhf_prm.advantages.host_baselines import HOST_BASELINES, outcomes_less_baseline
from openrlhf_prm.advantages.tensors import agrees

# Outcomes without their baseline have mean 0 in every group, so to take it off once more changes nothing; these two do
# more than that.
_MEAN_ONLY = {"rloo": "dr_grpo", "group_norm": "dr_grpo"}


def kept_sizes(kept: torch.Tensor, group_size: int) -> int | list[int]:
    """kept: (B,) bool -> how many of each question's responses are kept: G, or a list without zeros."""
    if kept.all():
        return group_size
    return [size for size in kept.reshape(-1, group_size).sum(-1).tolist() if size]


def fed_outcomes(
    estimator: str, outcomes: torch.Tensor, kept: torch.Tensor, group_size: int, gamma: float
) -> torch.Tensor | None:
    """(B,) outcomes without the estimator's baseline, 0 for responses that are left out; None where the host's own
    baseline is right. gamma: only `reinforce` discounts, and then equal outcomes are not equal returns.
    """
    whole = gamma == 1.0 or estimator != "reinforce"
    if not len(outcomes) or (kept.all() and not (whole and _rounding_alone(estimator, outcomes, group_size))):
        return None
    if not whole:
        return outcomes * kept
    fed = torch.zeros_like(outcomes)
    if kept.any():
        fed[kept] = outcomes_less_baseline(estimator, outcomes[kept], kept_sizes(kept, group_size))
    return fed


def _rounding_alone(estimator: str, outcomes: torch.Tensor, group_size: int) -> bool:
    """Whether the host would make advantages of rounding."""
    baseline = HOST_BASELINES[estimator]
    if baseline.outcomes is None or (group_size < 2 and not baseline.over_batch):
        return False
    groups = outcomes[None] if baseline.over_batch else outcomes.reshape(-1, group_size)
    return any(agrees(group) and bool(baseline.outcomes(group).any()) for group in groups)


@contextmanager
def penalties_applied(args) -> Iterator[None]:
    """Within, the host applies its length penalties no more: they are in the rewards already."""
    names = ("overlong_buffer_len", "stop_properly_penalty_coef")
    before = {name: getattr(args.reward, name) for name in names}
    for name in names:
        setattr(args.reward, name, None)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(args.reward, name, value)


@contextmanager
def fed(
    args, experiences: Sequence[Experience], rewards: torch.Tensor, kept: torch.Tensor, outcomes: torch.Tensor
) -> Iterator[None]:
    """Within, the experiences' rewards are `rewards`, and the host takes off a mean alone. Afterwards they and what is
    logged of them are the outcomes again. All (B,) in rollout order.
    """
    estimator = args.algo.advantage.estimator
    args.algo.advantage.estimator = _MEAN_ONLY.get(estimator, estimator)
    for experience in experiences:
        experience.rewards = rewards[torch.tensor(experience.index)]
    try:
        yield
    finally:
        args.algo.advantage.estimator = estimator
    size = args.rollout.n_samples_per_prompt
    groups = zip(outcomes.split(size), kept.split(size), strict=True)
    deviations = [group[mask].std() if mask.sum() > 1 else group.new_zeros(()) for group, mask in groups]
    for experience in experiences:
        index = torch.tensor(experience.index)
        experience.rewards = outcomes[index]
        experience.info["reward"] = outcomes[index].clone()
        if estimator == "reinforce":  # its logged return has no baseline taken off
            experience.info["return"] = experience.info["return"] + outcomes[index] - rewards[index]
        if "group_reward_std" in experience.info:
            experience.info["group_reward_std"] = torch.stack(deviations).repeat_interleave(size)[index]
