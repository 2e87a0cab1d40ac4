"""A rollout of two questions whose figures a reader can check by hand, and the mixer that flags make."""

import torch
from host_flags import parse

from openrlhf_prm.ppo.mixing import RewardMixer
from openrlhf_prm.ppo.plugin_options import read_options
from openrlhf_prm.ppo.rollout.records import StepRecord
from openrlhf_prm.ppo.rollout_columns import RolloutColumns


def mixer(*flags: str) -> RewardMixer:
    """Of a run without a PRM, unless flags ask for one."""
    return RewardMixer(read_options(parse(*flags)))


def prm_mixer(*flags: str) -> RewardMixer:
    """Of a run with a PRM."""
    return mixer("--prm.url", "http://prm", *flags)


def rollout(**columns) -> RolloutColumns:
    """Four responses of two steps, the first two to one question; steps score 0.75 and 0.25."""
    records = [StepRecord((2, 4), (0.75, 0.25), 0.5, 0.1)] * 4
    defaults = dict(
        outcomes=torch.tensor([1.0, 0.0, 1.0, 1.0]),
        correct=torch.tensor([True, False, True, True]),
        lengths=torch.full((4,), 4.0),
        truncated=torch.tensor([False, True, False, False]),
        prompts=["p", "p", "q", "q"],
        responses=["boxed 1", "no idea", "boxed 2", "boxed 2"],
        token_ids=[[1, 2, 3, 4]] * 4,
        records=records,
        group_size=2,
    )
    return RolloutColumns(**defaults | columns)
