"""The plugin as the host sees it: `--train.plugin openrlhf_prm.plugin` on a patched OpenRLHF, or
`openrlhf_prm.cli.train_ppo_ray`.

The host builds its trainer, rollout actor, experience maker and samples generator by module-level names. `setup`
rebinds those names to subclasses, in the driver before the host makes its actors; the trainer does the same in its
own process. No host file is changed and nothing else of the host is touched.
"""

import os
import sys

from openrlhf_prm.cluster.dry_run import add_dry_run_flags, asked_for
from openrlhf_prm.hosts import require_flash_attn
from openrlhf_prm.ppo import flag_checks, flags, paths
from openrlhf_prm.ppo.paths import absolute_paths
from vllm_prm.hosts import require_vllm

__all__ = ["absolute_paths", "add_arguments", "check_args", "setup"]

RAY_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "true", "NCCL_DEBUG": "WARN", "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1"}
"""What the host sets in the processes of a Ray that it starts or joins, where the user has not."""


def add_arguments(parser) -> None:
    """Adds the plugin's flags to the host's parser."""
    flags.add_arguments(parser)
    add_dry_run_flags(parser)


def check_args(args) -> None:
    """Raises ValueError, naming the flag, for what cannot work, where an installed package cannot run it, and where
    Ray has no room for it or a node lacks what a flag names. A dry run, which may be of another machine, ends here,
    with exit code 0.
    """
    flag_checks.check_args(args)
    # Neither is needed to find a flag that is wrong, and both import Ray.
    from openrlhf_prm.ppo import preflight

    if asked_for(args):
        preflight.dry_run(args)
        sys.exit(0)
    require_vllm()
    require_flash_attn(args.ds.attn_implementation)
    join_ray()
    preflight.require_room(args)
    paths.require_seen(args, args.prm.api_key_env)


def join_ray() -> None:
    """Starts Ray, or joins the cluster that this process belongs to, as the host would do next.

    On a CPU, outside a cluster, it is a Ray of our own, as in all commands. It has no dashboard, whose processes take
    longer to start there than they are of use.
    """
    import ray

    from openrlhf_prm.cluster.accelerator import on_cpu
    from openrlhf_prm.cluster.joining import join

    if ray.is_initialized():
        return
    if on_cpu() and "RAY_ADDRESS" not in os.environ:
        join(alone=True, include_dashboard=False)
        return
    given = {name: os.environ.get(name, default) for name, default in RAY_ENVIRONMENT.items()}
    join(runtime_env={"env_vars": given})


def setup(args) -> None:
    """Rebinds the host's trainer and rollout actor in this process. Idempotent; runs after the flags were checked."""
    import openrlhf.trainer.ppo_trainer as sync_trainer
    import openrlhf.trainer.ppo_trainer_async as async_trainer
    import openrlhf.trainer.ray.vllm_engine as vllm_engine
    import ray

    from openrlhf_prm.cluster import guarded_strategy
    from openrlhf_prm.ppo.plugin_options import read_options
    from openrlhf_prm.ppo.rollout.actor import ProbabilityRolloutActor, StepRolloutActor
    from openrlhf_prm.ppo.rollout.revival import RESTARTS
    from openrlhf_prm.ppo.trainers import ProcessPPOTrainer, ProcessPPOTrainerAsync

    guarded_strategy.install()
    actor = ProbabilityRolloutActor if read_options(args).reads_probabilities else StepRolloutActor
    vllm_engine.RolloutRayActor = ray.remote(**RESTARTS)(actor)
    sync_trainer.PPOTrainer = ray.remote(ProcessPPOTrainer)
    async_trainer.PPOTrainerAsync = ray.remote(ProcessPPOTrainerAsync)
