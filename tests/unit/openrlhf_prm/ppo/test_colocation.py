"""When a PRM may live on the policy's GPUs."""

import pytest
from host_flags import parse

from openrlhf_prm.ppo.colocation import check_colocation, roles_in_group
from openrlhf_prm.ppo.plugin_options import read_options

PRM = ("--prm.model_name_or_path", "owner/prm", "--prm.colocate")
FITTING = (*PRM, "--train.colocate_all", "--vllm.gpu_memory_utilization", "0.5", "--prm.gpus_per_engine", "0.4")
ONLINE = ("--process_reward.shaping", "implicit", "--online_prm.colocate")
CRITIC = ("--algo.advantage.estimator", "gae")
JUDGE = ("--reward.remote_url", "http://x")


def check(*flags: str) -> None:
    args = parse(*flags)
    check_colocation(args, read_options(args))


def test_what_the_host_puts_on_each_gpu_of_its_group():
    assert roles_in_group(parse()) == ["rollouts", "actor", "reference", "reward model"]
    assert roles_in_group(parse(*CRITIC, *JUDGE)) == ["rollouts", "actor", "reference", "critic"]
    assert roles_in_group(parse("--algo.kl.init_coef", "0", *JUDGE, "--train.async_enable")) == ["actor"]
    # These two have a group of their own.
    assert roles_in_group(parse(*CRITIC, "--train.colocate_critic_reward")) == ["rollouts", "actor", "reference"]


@pytest.mark.parametrize(
    "flags",
    [
        FITTING,
        (*FITTING, "--prm.tensor_parallel_size", "4", "--prm.num_engines", "2"),
        (*FITTING, *CRITIC, *JUDGE),
        (*FITTING, "--prm.gpu_memory_utilization", "0.3", "--vllm.gpu_memory_utilization", "0.65"),
        (*ONLINE, "--train.colocate_all", "--online_prm.num_gpus_per_node", "8"),
        (*ONLINE, "--train.colocate_all", "--train.async_enable"),
        ("--prm.model_name_or_path", "owner/prm", "--train.colocate_all"),
    ],
)
def test_what_fits(flags):
    check(*flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (PRM, "--prm.colocate needs --train.colocate_all without --train.async_enable"),
        ((*FITTING, "--train.async_enable"), "--prm.colocate needs --train.colocate_all without"),
        ((*FITTING, "--prm.num_engines", "9"), "--prm.num_engines x --prm.tensor_parallel_size is 9, more than the 8"),
        ((*FITTING, "--prm.tensor_parallel_size", "3", "--prm.num_engines", "3"), "is 9, more than the 8"),
        ((*FITTING, *CRITIC), "critic, reward model leave no share of a GPU; take --reward.remote_url"),
        (
            (*PRM, "--train.colocate_all"),
            "rollouts take 0.95 .* the PRM 0.9, .*; try --vllm.gpu_memory_utilization 0.5",
        ),
        ((*FITTING, "--vllm.gpu_memory_utilization", "0.6"), "rollouts take 0.6 of each GPU's memory"),
        (ONLINE, "--online_prm.colocate needs --train.colocate_all"),
        ((*ONLINE, "--train.colocate_all", "--online_prm.num_nodes", "9"), "--online_prm.num_gpus_per_node is 9, more"),
        ((*ONLINE, "--train.colocate_all", *CRITIC), "--online_prm.colocate: .* leave no share of a GPU"),
    ],
)
def test_what_does_not_is_said_with_what_to_type(flags, message):
    with pytest.raises(ValueError, match=message):
        check(*flags)
