"""The PRM on the GPUs of the policy (`--train.colocate_all`): what the host's placement group holds, what is left in it
for a PRM, and where in it the PRM's processes go.

The host gives each GPU of a colocated run one bundle, and of it `SHARE` to each of its own processes there.
"""

from types import SimpleNamespace
from typing import Any

from openrlhf_prm.ppo.plugin_options import PluginOptions

SHARE = 0.2
"""Of each bundle, as Ray counts it, what one process takes: the host's figure, and a PRM's."""

MOST_MEMORY = 0.95
"""Of a GPU's memory, what engines that are awake at the same time may take together."""


def group_size(args: SimpleNamespace) -> int:
    """GPUs, and bundles, of the host's group."""
    return args.actor.num_nodes * args.actor.num_gpus_per_node


def roles_in_group(args: SimpleNamespace) -> list[str]:
    """The host's processes on each GPU of the group."""
    roles = {
        "rollouts": not args.train.async_enable,
        "actor": True,
        "reference": args.algo.kl.init_coef > 0,
        "critic": args.algo.advantage.estimator == "gae" and not args.train.colocate_critic_reward,
        "reward model": not (args.reward.remote_url or args.train.agent_func_path)
        and not (args.algo.advantage.estimator == "gae" and args.train.colocate_critic_reward),
    }
    return [role for role, there in roles.items() if there]


def check_colocation(args: SimpleNamespace, options: PluginOptions) -> None:
    """Raises ValueError, naming the flag, where the PRM cannot live on the policy's GPUs."""
    workers, online = options.workers, options.online_prm
    if workers is not None and workers.colocate:
        if not args.train.colocate_all or args.train.async_enable:
            raise ValueError(
                "--prm.colocate needs --train.colocate_all without --train.async_enable: elsewhere PRM engines have "
                "GPUs of their own"
            )
        asked = workers.num_engines * workers.tensor_parallel_size
        _check_size(args, asked, "--prm.num_engines x --prm.tensor_parallel_size")
        _check_shares(args, "--prm.colocate")
        _check_memory(args, workers)
    if online is not None and online.colocate:
        if not args.train.colocate_all:
            raise ValueError("--online_prm.colocate needs --train.colocate_all")
        asked = online.num_nodes * online.num_gpus_per_node
        _check_size(args, asked, "--online_prm.num_nodes x --online_prm.num_gpus_per_node")
        _check_shares(args, "--online_prm.colocate")


def _check_size(args: SimpleNamespace, asked: int, flags: str) -> None:
    if asked > group_size(args):
        raise ValueError(
            f"{flags} is {asked}, more than the {group_size(args)} GPUs that the policy has "
            "(--actor.num_nodes x --actor.num_gpus_per_node)"
        )


def _check_shares(args: SimpleNamespace, flag: str) -> None:
    roles = roles_in_group(args)
    if (len(roles) + 1) * SHARE > 1 + 1e-9:
        raise ValueError(
            f"{flag}: {', '.join(roles)} leave no share of a GPU; take --reward.remote_url instead of a reward model"
        )


def _check_memory(args: SimpleNamespace, workers: Any) -> None:
    """Rollout engines and PRM engines are awake together."""
    policy, prm = args.vllm.gpu_memory_utilization, workers.memory
    if policy + prm > MOST_MEMORY + 1e-9:
        raise ValueError(
            f"--prm.colocate: rollouts take {policy:g} of each GPU's memory (--vllm.gpu_memory_utilization) and the "
            f"PRM {prm:g}, together at most {MOST_MEMORY:g}; try --vllm.gpu_memory_utilization 0.5 "
            "--prm.gpus_per_engine 0.4"
        )


def host_group(actors: Any) -> Any:
    """The placement group that a host's `RayActorGroup` lives in, None for none. The host keeps it to itself, but each
    of its actors knows.
    """
    import ray

    return ray.get(actors._actor_handlers[0].__ray_call__.remote(_own_group))


def _own_group(actor: Any) -> Any:
    import ray

    return ray.util.get_current_placement_group()


def prm_places(group: Any, num_engines: int, split: int) -> list:
    """A place per engine, `split` GPUs each; those of one engine lie on one node as far as the host's do."""
    from openrlhf.trainer.ray.utils import get_bundle_indices

    from openrlhf_prm.cluster.spawning import Place

    return [
        Place(group, tuple(get_bundle_indices(group, index, split)) if split > 1 else (index,), SHARE)
        for index in range(num_engines)
    ]
