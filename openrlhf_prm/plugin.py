"""The plugin as the host sees it: `--train.plugin openrlhf_prm.plugin` on a patched OpenRLHF, or
`openrlhf_prm.cli.train_ppo_ray`.

The host builds its trainer, rollout actor, experience maker and samples generator by module-level names. `setup`
rebinds those names to subclasses, in the driver before the host makes its actors; the trainer does the same in its
own process. No host file is changed and nothing else of the host is touched.
"""

import os

from openrlhf_prm.ppo.flag_checks import check_args
from openrlhf_prm.ppo.flags import add_arguments

__all__ = ["add_arguments", "check_args", "setup"]


def setup(args) -> None:
    """Rebinds the host's trainer and rollout actor in this process. Idempotent; runs after the flags were checked.

    On a CPU machine without a Ray cluster it starts one, because the host would start Ray's dashboard too, whose
    processes take longer to start there than they are of use.
    """
    import openrlhf.trainer.ppo_trainer as sync_trainer
    import openrlhf.trainer.ppo_trainer_async as async_trainer
    import openrlhf.trainer.ray.vllm_engine as vllm_engine
    import ray

    from openrlhf_prm.cluster.accelerator import on_cpu
    from openrlhf_prm.ppo.rollout.actor import StepRolloutActor
    from openrlhf_prm.ppo.trainers import ProcessPPOTrainer, ProcessPPOTrainerAsync

    vllm_engine.RolloutRayActor = ray.remote(StepRolloutActor)
    sync_trainer.PPOTrainer = ray.remote(ProcessPPOTrainer)
    async_trainer.PPOTrainerAsync = ray.remote(ProcessPPOTrainerAsync)
    if on_cpu() and not ray.is_initialized() and "RAY_ADDRESS" not in os.environ:
        ray.init(include_dashboard=False)
