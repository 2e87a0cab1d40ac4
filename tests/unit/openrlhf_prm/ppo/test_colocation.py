"""When a PRM may live on the policy's GPUs."""

import pytest
from real_ppo_flags import ppo_args

from openrlhf_prm.ppo.colocation import check_colocation
from openrlhf_prm.ppo.demands import demands_of
from openrlhf_prm.ppo.plugin_options import read_options

HYBRID = ("--train.colocate_all", "--vllm.num_engines", 8)
NO_CRITIC = ("--algo.advantage.estimator", "group_norm", "--rollout.n_samples_per_prompt", 8)
PRM = (*NO_CRITIC, "--prm.model_name_or_path", "owner/prm", "--prm.colocate")
FITTING = (*PRM, *HYBRID, "--vllm.gpu_memory_utilization", 0.5, "--prm.gpus_per_engine", 0.4)
ONLINE = (*NO_CRITIC, "--process_reward.shaping", "implicit", "--online_prm.colocate")
CRITIC = ("--algo.advantage.estimator", "gae")


def check(*flags: object, reward_model: bool = False) -> None:
    args = ppo_args(*flags)
    if reward_model:
        args.reward.remote_url = None
    options = read_options(args)
    check_colocation(args, options)
    demands_of(args, options)


@pytest.mark.parametrize(
    "flags",
    [
        FITTING,
        (*FITTING, "--prm.tensor_parallel_size", 4, "--prm.num_engines", 2),
        (*FITTING, *CRITIC),
        (*FITTING, "--prm.gpu_memory_utilization", 0.3, "--vllm.gpu_memory_utilization", 0.65),
        (*ONLINE, *HYBRID, "--online_prm.num_gpus_per_node", 8),
        (*ONLINE, *HYBRID, "--train.async_enable"),
        ("--prm.model_name_or_path", "owner/prm", *HYBRID),
    ],
)
def test_what_fits(flags):
    check(*flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (PRM, "--prm.colocate needs --train.colocate_all without --train.async_enable"),
        ((*FITTING, "--train.async_enable"), "--prm.colocate needs --train.colocate_all without"),
        ((*PRM, *HYBRID), "rollouts take 0.95 .* PRM 0.9, .*; try --vllm.gpu_memory_utilization 0.5 --prm.gpus_per"),
        ((*FITTING, "--vllm.gpu_memory_utilization", 0.6), "rollouts take 0.6 of each GPU's memory"),
        ((*FITTING, "--prm.num_engines", 9), "--prm.num_engines .* needs 9 GPUs of the 8 that it shares with actor"),
        ((*FITTING, "--prm.tensor_parallel_size", 3, "--prm.num_engines", 3), "needs 9 GPUs of the 8"),
        (ONLINE, "--online_prm.colocate needs --train.colocate_all"),
        ((*ONLINE, *HYBRID, "--online_prm.num_nodes", 9), "--online_prm.num_nodes x .* needs 9 GPUs of the 8"),
    ],
)
def test_what_does_not_is_said_with_what_to_type(flags, message):
    with pytest.raises(ValueError, match=message):
        check(*flags)


@pytest.mark.parametrize("flags", [(*FITTING, *CRITIC), (*ONLINE, *CRITIC, *HYBRID)])
def test_five_models_of_the_hosts_leave_no_share_of_a_gpu(flags):
    with pytest.raises(ValueError, match="the shares of one GPU are more than 1: .*prm 0.2"):
        check(*flags, reward_model=True)
