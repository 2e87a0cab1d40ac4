"""What a PPO run asks of Ray, from the host's real flags; and what is said where it is not there."""

import json

import pytest
from real_ppo_flags import POLICY, ppo_args

from openrlhf_prm.cluster.demands import Group
from openrlhf_prm.cluster.nodes import described
from openrlhf_prm.ppo import preflight
from openrlhf_prm.ppo.demands import demands_of
from openrlhf_prm.ppo.plugin_options import read_options

NO_CRITIC = ("--algo.advantage.estimator", "group_norm", "--rollout.n_samples_per_prompt", 8)
PRM = ("--prm.model_name_or_path", POLICY, "--prm.family", "placeholder", "--prm.num_engines", 2)
README = (*NO_CRITIC, *PRM, "--vllm.num_engines", 4)


def asked(*flags: object) -> dict[str, float]:
    """Name -> GPUs of each demand."""
    args = ppo_args(*flags)
    return {demand.name: demand.total for demand in demands_of(args, read_options(args)) if demand.total}


def sized(gpus: int, *models: str, nodes: int = 1) -> list[object]:
    flags = []
    for model in models:
        flags += [f"--{model}.num_gpus_per_node", gpus, f"--{model}.num_nodes", nodes]
    return flags


def test_separate_models_take_the_hosts_defaults():
    assert asked(*README) == {"vllm": 4, "actor": 8, "ref": 8, "prm": 2}
    assert asked(*README, "--algo.kl.init_coef", 0) == {"vllm": 4, "actor": 8, "prm": 2}
    assert asked("--vllm.num_engines", 1) == {"vllm": 1, "actor": 8, "ref": 8, "critic": 8}  # gae has a critic
    args = ppo_args("--vllm.num_engines", 1)
    args.reward.remote_url = None
    judged = {demand.name: demand.total for demand in demands_of(args, read_options(args)) if demand.total}
    assert judged == {"vllm": 1, "actor": 8, "ref": 8, "critic": 8, "reward": 8}
    assert asked(*README, "--vllm.tensor_parallel_size", 2, *sized(4, "actor", "ref", nodes=2))["vllm"] == 8


def test_colocated_models_share_one_group():
    assert asked(*README, "--train.colocate_actor_ref") == {"actor + ref": 8, "vllm": 4, "prm": 2}
    both = ("--train.colocate_actor_ref", "--train.colocate_critic_reward")
    assert asked("--vllm.num_engines", 2, *both) == {"actor + ref": 8, "vllm": 2, "critic": 8}
    hybrid = ("--train.colocate_all", "--vllm.num_engines", 8)
    assert asked(*hybrid) == {"actor + ref + vllm + critic": 8}
    assert asked(*hybrid, "--train.colocate_critic_reward") == {"actor + ref + vllm": 8, "critic": 8}
    # In async runs the engines have GPUs of their own.
    assert asked(*hybrid, "--train.async_enable") == {"actor + ref + critic": 8, "vllm": 8}


def test_one_gpu_per_node_makes_no_group():
    args = ppo_args(*NO_CRITIC, *sized(1, "actor", nodes=3), *sized(2, "ref"), "--vllm.num_engines", 1)
    kinds = {demand.name: isinstance(demand, Group) for demand in demands_of(args, read_options(args))}
    assert kinds == {"vllm": True, "actor": False, "ref": True, "trainer": False}


def test_a_prm_that_learns_has_gpus_of_its_own():
    implicit = ("--process_reward.shaping", "implicit", "--algo.advantage.estimator", "prime", "--vllm.num_engines", 1)
    one = (*implicit, *sized(1, "actor", "ref"))
    assert asked(*one, "--online_prm.gpus_per_actor", 0.5)["online_prm"] == 0.5
    assert asked(*one, "--online_prm.num_gpus_per_node", 4, "--online_prm.gpus_per_actor", 0.5)["online_prm"] == 4
    assert "prm" not in asked(*one, "--prm.url", "http://x")
    together = asked(*one, "--train.colocate_all", "--online_prm.colocate")
    assert together == {"actor + ref + vllm + online_prm": 1}


def test_a_prm_lives_on_the_policys_gpus_or_on_its_own():
    hybrid = (*NO_CRITIC, *PRM, "--train.colocate_all", "--vllm.num_engines", 4, *sized(4, "actor", "ref"))
    assert asked(*hybrid) == {"actor + ref + vllm": 4, "prm": 2}
    assert asked(*hybrid, "--prm.colocate") == {"actor + ref + vllm + prm": 4}
    assert asked(*hybrid, "--prm.gpus_per_engine", 0.25)["prm"] == 0.5
    assert asked(*hybrid, "--prm.tensor_parallel_size", 4)["prm"] == 8
    split = ("--prm.colocate", "--prm.tensor_parallel_size", 2)
    args = ppo_args(*hybrid, *split)
    [prm] = [role for role in demands_of(args, read_options(args))[0].roles if role.name == "prm"]
    assert (prm.processes, prm.spans, prm.gpus) == (2, 2, 0.2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train.colocate_actor_ref", *sized(4, "ref")], r"--train.colocate_actor_ref: --ref.* is 1 x 4 and --actor"),
        (["--train.colocate_all", "--vllm.num_engines", 4], "--vllm.tensor_parallel_size is 4 and --actor.* 8"),
        (["--actor.num_gpus_per_node", 0], "--actor.num_gpus_per_node must be at least 1"),
        (["--vllm.tensor_parallel_size", 0], "--vllm.tensor_parallel_size must be at least 1"),
        (["--train.batch_size", 100], "--train.batch_size 100 must be a multiple of 8, which is --train.micro_batch"),
        (["--ds.ring_attn_size", 3], "which must be a multiple of --ds.ring_attn_size"),
        (["--rollout.batch_size", 1, "--rollout.micro_batch_size", 8], "too few for 8 processes of the actor"),
        (["--rollout.batch_size", 1, "--rollout.micro_batch_size", 0], "--rollout.micro_batch_size must be at least 1"),
    ],
)
def test_sizes_that_the_host_would_stop_at_are_named(flags, message):
    args = ppo_args(*README, *flags, "--dry_run", "--dry_run.gpus", "9x8x80")
    with pytest.raises(ValueError, match=message):
        preflight.dry_run(args)


def test_too_few_gpus_are_said_with_the_sum_and_with_flags_that_fit(capsys):
    args = ppo_args(*README, "--dry_run", "--dry_run.gpus", "8x80")
    with pytest.raises(ValueError) as error:
        preflight.dry_run(args)
    said = str(error.value)
    assert "needs 22 GPUs: vllm 4 (--vllm.num_engines" in said and "prm 2 (--prm.num_engines)" in said
    assert "there are 8 GPUs (1 node with 8)" in said
    flags = said.partition("These fit: ")[2].split()
    together = ["--train.colocate_actor_ref", "--actor.num_gpus_per_node", "2", "--ref.num_gpus_per_node", "2"]
    assert flags == together
    preflight.dry_run(ppo_args(*README, *flags, "--dry_run", "--dry_run.gpus", "8x80"))
    table = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert [line.split() for line in table] == [
        ["role", "processes", "GPUs", "nodes"],
        ["actor", "2", "2,", "shared", "with", "ref", "node", "0:", "2"],
        ["ref", "2", "2,", "shared", "with", "actor", "node", "0:", "2"],
        ["vllm", "4", "4", "node", "0:", "4"],
        ["trainer", "1", "0", "node", "0:", "1"],
        ["prm", "2", "2", "node", "0:", "2"],
        ["all", "8", "of", "8", "1", "node", "with", "8"],
    ]


@pytest.mark.parametrize(
    ("cluster", "flags"),
    [
        ("4x80", []),
        ("2x80", []),
        ("2x2x80", ["--vllm.tensor_parallel_size", 2]),
        ("1x80", ["--prm.url", "http://x"]),
        ("2x8x80", ["--vllm.num_engines", 16, "--train.batch_size", 24]),
    ],
)
def test_flags_that_are_said_to_fit_do(cluster, flags):
    prm = [] if "--prm.url" in flags else PRM
    given = (*NO_CRITIC, *prm, "--vllm.num_engines", 4, *flags)
    with pytest.raises(ValueError) as error:
        preflight.dry_run(ppo_args(*given, "--dry_run", "--dry_run.gpus", cluster))
    said = str(error.value)
    fitting = said.partition("These fit: ")[2].split()
    if cluster == "2x80":  # two PRM engines take them both
        assert said.endswith("No smaller sizes fit either")
        return
    assert fitting, said
    preflight.dry_run(ppo_args(*given, *fitting, "--dry_run", "--dry_run.gpus", cluster))


def test_no_room_in_one_piece_is_said():
    """16 GPUs for 16, but 5 left on each of two nodes where the PRM takes 8 of one."""
    args = ppo_args(
        *(*NO_CRITIC, *sized(4, "actor", "ref"), "--vllm.num_engines", 2, "--prm.model_name_or_path", POLICY),
        *("--prm.tensor_parallel_size", 8, "--train.batch_size", 16),
    )
    args.dry_run.gpus = described("2x9x80")
    with pytest.raises(ValueError, match="but prm 8 .* finds no room: a process of it takes 8 GPUs of one node"):
        preflight.dry_run(args)


def save_pair(folder) -> str:
    """Two models of 3.8 billion parameters that are one PRM."""
    sizes = {"model_type": "qwen2", "hidden_size": 4096, "intermediate_size": 4096, "num_hidden_layers": 32}
    sizes |= {"num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 4096, "tie_word_embeddings": True}
    for name, declared in (
        ("prm", {"prm": {"family": "implicit", "reference": str(folder / "reference")}}),
        ("reference", {}),
    ):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(sizes | declared))
    return str(folder / "prm")


def test_a_prm_of_two_models_holds_both_in_its_share(tmp_path, capsys):
    given = (*NO_CRITIC, "--vllm.num_engines", 1, "--vllm.gpu_memory_utilization", 0.2, *sized(1, "actor", "ref"))
    given += (
        "--train.colocate_actor_ref",
        "--prm.model_name_or_path",
        save_pair(tmp_path),
        "--dry_run",
        "--dry_run.gpus",
    )
    preflight.dry_run(ppo_args(*given, "3x80"))
    assert "prm: weights 14.1, cache 58.0" in capsys.readouterr().out
    half = ("--prm.gpus_per_engine", 0.5)
    preflight.dry_run(ppo_args(*given, "3x80", *half))
    assert "prm: weights 14.1, cache 22.0" in capsys.readouterr().out
    with pytest.raises(
        ValueError, match="--prm.gpus_per_engine: .* 5.4 GiB .* for each of 2 models.* less than .* 7.0"
    ):
        preflight.dry_run(ppo_args(*given, "3x24", *half))


def test_a_model_whose_passes_cannot_be_rehearsed_counts_without_its_activations(tmp_path, capsys):
    """A mixture of experts, whose kernel takes bfloat16 alone."""
    config = {"model_type": "qwen2_moe", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config |= {"num_experts": 4, "moe_intermediate_size": 32, "intermediate_size": 64, "num_key_value_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    given = ("--actor.model_name_or_path", tmp_path, *NO_CRITIC, "--vllm.num_engines", 1, *sized(1, "actor", "ref"))
    given += ("--ds.param_dtype", "fp32")
    preflight.dry_run(ppo_args(*given, "--dry_run", "--dry_run.gpus", "8x80"))
    out = capsys.readouterr().out
    assert out.count("not estimated: activations: the passes of") == 1
    assert all(f"a GPU of {role}: " in out for role in ("actor", "ref", "vllm"))
