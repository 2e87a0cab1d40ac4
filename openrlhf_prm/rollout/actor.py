"""The host's rollout actor, with step scoring attached once the PRM workers are up."""

import os

from openrlhf.trainer.ray.vllm_engine import RolloutRayActor

from openrlhf_prm.accelerator import ROLLOUT_KV_CACHE_MB
from openrlhf_prm.rollout.executor import StepScoring, StepScoringExecutor

# The host's class under Ray's decorator, which itself cannot be subclassed.
_HOST = RolloutRayActor.__ray_metadata__.modified_class


class StepRolloutActor(_HOST):
    """Everything the host's actor does, plus `attach_step_scoring`."""

    async def __init__(self, *args, **kwargs):
        # The host has no flag for the cache's size, and vLLM's own variable for CPUs counts whole GiB.
        if size := os.environ.get(ROLLOUT_KV_CACHE_MB):
            kwargs["kv_cache_memory_bytes"] = int(size) << 20
            os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # it would win
        await super().__init__(*args, **kwargs)

    def attach_step_scoring(self, scoring: StepScoring | None) -> None:
        """Wraps the executor the host chose. Called once, before the first rollout."""
        self.executor = StepScoringExecutor(self.executor, scoring)
