"""The host's rollout actor, with steps looked at once the PRM workers are up."""

import os
from collections.abc import Awaitable
from copy import deepcopy

import ray
from openrlhf.trainer.ray.vllm_engine import RolloutRayActor

from openrlhf_prm.cluster.accelerator import ROLLOUT_KV_CACHE_MB, on_cpu
from openrlhf_prm.cluster.spawning import end_without_engine
from openrlhf_prm.ppo.rollout.branches import QuestionOutcomes
from openrlhf_prm.ppo.rollout.executor import QUESTION_FORKS, QUESTION_OUTCOMES, StepScoring, StepScoringExecutor
from openrlhf_prm.ppo.rollout.forks import QuestionForks
from openrlhf_prm.ppo.rollout.revival import StaleEngine
from openrlhf_prm.ppo.self_correction.executor import AttemptsExecutor
from openrlhf_prm.ppo.self_correction.offline import OfflineAttempts
from vllm_prm.engines import heed_cache_size
from vllm_prm.parent_watch import end_engines_with_this_process, end_with_parent

# The host's class under Ray's decorator, which itself cannot be subclassed.
_HOST = RolloutRayActor.__ray_metadata__.modified_class


class StepRolloutActor(_HOST):
    """Everything the host's actor does, plus `attach_step_scoring`."""

    _offline: OfflineAttempts | None = None

    async def __init__(self, *args, **kwargs):
        end_with_parent()
        end_engines_with_this_process()
        # The host has no flag for the cache's size, and vLLM's own variable for CPUs counts whole GiB.
        if size := os.environ.get(ROLLOUT_KV_CACHE_MB):
            kwargs["kv_cache_memory_bytes"] = int(size) << 20
        heed_cache_size(kwargs)
        if on_cpu() and kwargs.get("enable_prefix_caching"):
            # Whole blocks are shared, and vLLM's 128 tokens on CPU are longer than the steps of small models.
            kwargs.setdefault("block_size", 32)
        if on_cpu():
            kwargs["enable_sleep_mode"] = False  # vLLM's engines there sleep without giving memory back
        self.stale = ray.get_runtime_context().was_current_actor_reconstructed
        await super().__init__(*args, **kwargs)

    def write_attempts(self, options, prompts) -> None:
        """Wraps the executor the host chose in one that writes several attempts; comes before `attach_step_scoring`."""
        if self._is_told:
            return
        if options.offline_share:
            self._offline = OfflineAttempts(options.offline_file, options.offline_share, options.stage_of(0))
        self.executor = AttemptsExecutor(self.executor, options, prompts, self._offline)

    def set_stage(self, stage: int) -> None:
        """The stage of self-correction that the next rollouts belong to."""
        self._offline.stage = stage

    def is_stale(self) -> bool:
        """Whether this actor came back, and has not been told since that it has the policy's weights."""
        return self.stale

    def now_current(self) -> None:
        """The policy's weights have come."""
        self.stale = False

    def attach_step_scoring(self, scoring: StepScoring | None, reward_timeout_s: float | None = None) -> None:
        """Wraps the executor the host chose. Called before the first rollout, and again where this actor came back."""
        if not self._is_told:
            self.executor = StepScoringExecutor(self.executor, scoring, reward_timeout_s)

    @property
    def _is_told(self) -> bool:
        """Whether the executor is wrapped: an actor that died while the run began is told twice after it came back."""
        return isinstance(self.executor, StepScoringExecutor)

    def look_at_steps(self, wanted: bool) -> None:
        """Switches looking at steps off and on, for rollouts that only need the policy's outcome."""
        self.executor.looking = wanted and self.executor.scoring is not None
        if self._offline is not None:
            self._offline.wanted = wanted

    async def generate(self, prompt_token_ids, sampling_params, multi_modal_data=None):
        """The host's, which reads the last output only: vLLM need not make one for every token before it."""
        params = deepcopy(sampling_params)
        params.output_kind = type(params.output_kind).FINAL_ONLY
        return await _or_end(super().generate(prompt_token_ids, params, multi_modal_data))

    async def generate_responses(self, *args, num_samples: int = 1, **kwargs):
        if self.stale:
            raise StaleEngine("a rollout engine came back with the weights that the run began with")
        QUESTION_OUTCOMES.set(QuestionOutcomes(num_samples))
        if self._offline is not None:
            self._offline.draw()
        if self.executor.looking and self.executor.scoring.forks is not None:
            QUESTION_FORKS.set(QuestionForks(self.executor.scoring.forks, num_samples))
        return await super().generate_responses(*args, num_samples=num_samples, **kwargs)

    async def update_weight(self, name, dtype, shape, empty_cache=False):
        result = await _or_end(super().update_weight(name, dtype, shape, empty_cache))
        self._forget_states(empty_cache)
        return result

    async def update_weight_cuda_ipc(self, name, dtype, shape, ipc_handles, empty_cache=False):
        result = await _or_end(super().update_weight_cuda_ipc(name, dtype, shape, ipc_handles, empty_cache))
        self._forget_states(empty_cache)
        return result

    def _forget_states(self, last_weight: bool) -> None:
        if last_weight and self.executor.sampler is not None:
            self.executor.sampler.forget()


async def _or_end(asked: Awaitable):
    """What the engine answers; where it is dead this actor ends, and Ray starts another."""
    try:
        return await asked
    except Exception as error:
        end_without_engine(error)
        raise


class ProbabilityRolloutActor(StepRolloutActor):
    """For estimators that read token probabilities: those after temperature, top-p and top-k, by which tokens
    are drawn. The engine's default are those before.
    """

    async def __init__(self, *args, **kwargs):
        await super().__init__(*args, **{**kwargs, "logprobs_mode": "processed_logprobs"})
