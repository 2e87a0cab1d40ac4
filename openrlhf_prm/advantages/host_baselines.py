"""What the host's estimators do to a scalar reward, done to step rewards.

OpenRLHF subtracts a baseline from the reward of a response before it spreads it over tokens. Step rewards get the
same treatment, over the steps of the group instead of its responses, so that with one step per response nothing
differs from the host (GRPO's process supervision, arXiv:2402.03300, section 4.1.3). Keys are the host's
`--algo.advantage.estimator` values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from openrlhf_prm.advantages.tensors import agrees, mean_of_others

if TYPE_CHECKING:
    import torch

# (S_b,) step rewards of the responses of a group.
RewardRows = list["torch.Tensor"]


def unchanged(group: RewardRows) -> RewardRows:
    """No baseline: a critic or the host's own whitening does the work."""
    return group


def group_mean(group: RewardRows) -> RewardRows:
    """r - mean of all step rewards of the group; 0 where they agree. No step at all: nothing to do."""
    steps = _joined(group)
    if len(steps) and agrees(steps):
        return [rewards * 0 for rewards in group]
    return [rewards - steps.mean() for rewards in group] if len(steps) else group


def group_score(group: RewardRows) -> RewardRows:
    """(r - mean) / (std + 1e-9) over all step rewards of the group; 0 where they agree, as a single one does."""
    steps = _joined(group)
    if agrees(steps):
        return [rewards * 0 for rewards in group]
    return [(rewards - steps.mean()) / (steps.std() + 1e-9) for rewards in group]


def less_mean_of_others_steps(group: RewardRows) -> RewardRows:
    """r - mean of all step rewards of the other responses, 0 where all agree; without steps of others, r itself."""
    steps = _joined(group)
    if len(steps) > 1 and agrees(steps) and max(map(len, group)) < len(steps):
        return [rewards * 0 for rewards in group]
    adjusted = []
    for rewards in group:
        others = len(steps) - len(rewards)
        adjusted.append(rewards - (steps.sum() - rewards.sum()) / others if others else rewards)
    return adjusted


def less_group_mean(outcomes: torch.Tensor) -> torch.Tensor:
    return outcomes - outcomes.mean()


def less_mean_of_others(outcomes: torch.Tensor) -> torch.Tensor:
    return outcomes - mean_of_others(outcomes, len(outcomes))


def as_they_are(outcomes: torch.Tensor) -> torch.Tensor:
    """The host's whitening takes off their mean."""
    return outcomes


def score_in_group(outcomes: torch.Tensor) -> torch.Tensor:
    return (outcomes - outcomes.mean()) / (outcomes.std() + 1e-9)


@dataclass(frozen=True)
class HostBaseline:
    """steps: what is done to step rewards. outcomes: what the host does to the (G,) outcomes of a group, None for
    nothing. over_batch: at once over the whole batch, not question by question. divides: by their deviation, which
    takes a weight of the rewards out again. unbiased: whether the expected gradient is exactly that of the outcome.
    """

    steps: Callable[[RewardRows], RewardRows]
    outcomes: Callable[[torch.Tensor], torch.Tensor] | None = None
    over_batch: bool = False
    divides: bool = False
    unbiased: bool = False


HOST_BASELINES = {
    "gae": HostBaseline(unchanged),
    "reinforce": HostBaseline(unchanged, as_they_are, over_batch=True),
    "reinforce_baseline": HostBaseline(group_mean, less_group_mean),
    "dr_grpo": HostBaseline(group_mean, less_group_mean),
    "rloo": HostBaseline(less_mean_of_others_steps, less_mean_of_others, unbiased=True),
    "group_norm": HostBaseline(group_score, score_in_group, divides=True),
    "flash_reinforce": HostBaseline(group_mean, less_group_mean, over_batch=True),
}


def apply_host_baseline(
    estimator: str, process_rewards: RewardRows, group_sizes: int | list[int], of: str = "steps"
) -> RewardRows:
    """B tensors (S_b,) of step rewards -> the same with the estimator's baseline taken off. group_sizes: G, or one for
    each question.

    of: "steps" compares each step reward with those of the group's steps, as published, and so charges a response for
    every further step or pays for it. "returns" compares whole responses' sums, as the host does with outcomes, and
    puts what is taken off on the last step: then every step's return has it, and with a baseline that is unbiased for
    outcomes (`HostBaseline.unbiased`) the expected gradient is exactly that of the rewards.
    """
    baseline = HOST_BASELINES[estimator]
    adjusted: RewardRows = []
    for places in _groups(baseline, len(process_rewards), group_sizes):
        group = [process_rewards[place] for place in places]
        adjusted += baseline.steps(group) if of == "steps" else _returns_compared(baseline, group)
    return adjusted


def _returns_compared(baseline: HostBaseline, group: RewardRows) -> RewardRows:
    import torch

    totals = torch.stack([rewards.sum() for rewards in group])
    if baseline.outcomes is None:
        return group
    scale = totals.std() + 1e-9 if baseline.divides else totals.new_ones(())
    if len(totals) > 1 and agrees(totals):
        compared, scale = totals * 0, totals.new_ones(())
    else:
        compared = baseline.outcomes(totals)
    adjusted = []
    for rewards, total, wanted in zip(group, totals, compared, strict=True):
        changed = rewards / scale
        changed[-1:] += wanted - total / scale
        adjusted.append(changed)
    return adjusted


def outcomes_less_baseline(estimator: str, outcomes: torch.Tensor, group_sizes: int | list[int]) -> torch.Tensor:
    """(B,) outcomes with the baseline that the host would take off; exactly 0 in groups of one or that agree but for
    rounding, which the host would divide by itself.
    """
    import torch

    baseline = HOST_BASELINES[estimator]
    if baseline.outcomes is None:
        return outcomes
    groups = [outcomes[list(places)] for places in _groups(baseline, len(outcomes), group_sizes)]
    return torch.cat([group * 0 if agrees(group) else baseline.outcomes(group) for group in groups])


def _groups(baseline: HostBaseline, count: int, group_sizes: int | list[int]) -> list[range]:
    if baseline.over_batch:
        return [range(count)]
    sizes = [group_sizes] * (count // group_sizes) if isinstance(group_sizes, int) else group_sizes
    return [range(end - size, end) for end, size in zip(accumulate(sizes), sizes, strict=True)]


def _joined(group: RewardRows) -> torch.Tensor:
    import torch

    return torch.cat(group)
