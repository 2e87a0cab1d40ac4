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


def check_colocation(args: SimpleNamespace, options: PluginOptions) -> None:
    """Raises ValueError, naming the flag, where the PRM has no group to live in, or no memory there. Whether the group
    has a place for it is the business of `demands`.
    """
    workers, online = options.workers, options.online_prm
    if workers is not None and workers.colocate:
        if not args.train.colocate_all or args.train.async_enable:
            raise ValueError(
                "--prm.colocate needs --train.colocate_all without --train.async_enable: elsewhere PRM engines have "
                "GPUs of their own"
            )
        _check_memory(args, workers)
    if online is not None and online.colocate and not args.train.colocate_all:
        raise ValueError("--online_prm.colocate needs --train.colocate_all")


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
