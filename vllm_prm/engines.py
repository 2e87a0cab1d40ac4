"""The two ways into a vLLM engine, behind one request and one answer. The only file that calls vLLM to score."""

import asyncio
import os
import uuid
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from vllm_prm import register

ENGINE_NAMES = ("offline", "async")
GPU_MEMORY = 0.9
"""Of its share of a GPU's memory, what an engine takes; the rest is for CUDA, and for what is not counted."""


@dataclass(frozen=True)
class PoolRequest:
    """Read the head at `step_positions` of `token_ids`; `read_prefix_cache=False` forwards every token."""

    token_ids: list[int]
    step_positions: list[int]
    reward_token_ids: tuple[int, ...]
    read_prefix_cache: bool

    def extra_kwargs(self) -> dict[str, Any]:
        """What `StepPooler` reads."""
        return {"step_positions": self.step_positions, "token_ids": list(self.reward_token_ids)}


@dataclass(frozen=True)
class PoolAnswer:
    """`rows`: position -> logits, for the wanted positions that were forwarded. `cached_tokens`: not forwarded."""

    rows: dict[int, tuple[float, ...]]
    cached_tokens: int


def engine_arguments(
    model: str, hf_overrides: dict[str, Any], engine_args: dict[str, Any], engines: int = 1
) -> dict[str, Any]:
    """vLLM engine arguments for scoring steps with `model`; the caller's own `engine_args` win over `device_defaults`.

    `hf_overrides`: those of its family. `engines`: how many share the device.
    """
    overrides = engine_args.get("hf_overrides") or {}
    if not isinstance(overrides, dict):
        raise ValueError("hf_overrides must be a dict, so that the step-reward architecture can be added to it")
    defaults = {"runner": "pooling", "enable_prefix_caching": True, **device_defaults(engine_args, engines)}
    return {"model": model, **defaults, **engine_args, "hf_overrides": {**hf_overrides, **overrides}}


def longest_prompt(max_model_len: int) -> int:
    """The most tokens a solution may have: one less than the context.

    vLLM's scheduler keeps room for a sampled token, so a prompt of exactly `max_model_len` tokens that it happens to
    prefill in pieces is never finished, and the request hangs.
    """
    return max_model_len - 1


def device_defaults(given: Container[str], engines: int = 1) -> dict[str, Any]:
    """vLLM arguments that differ from its defaults here, unless `given` says otherwise.

    On CPU `cpu_defaults`. On a GPU each engine takes a share of all its memory, and vLLM's default leaves no room for a
    second: `engines` of them divide `GPU_MEMORY`.
    """
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return cpu_defaults(given)
    return {} if engines == 1 or "gpu_memory_utilization" in given else {"gpu_memory_utilization": GPU_MEMORY / engines}


def cpu_defaults(given: Container[str]) -> dict[str, Any]:
    """vLLM arguments that differ from its defaults on CPU, unless `given` says otherwise.

    The block size decides how much of a growing solution is forwarded again (a cache hit is whole blocks): vLLM's
    default there is 128, 32 the least it takes. The cache would take 92% of the machine's memory; 1 GiB holds some
    ten thousand tokens of a 7B model. A CPU without AVX-512 multiplies bfloat16 matrices many times slower than
    float32 ones.
    """
    sized = any(name in given for name in ("kv_cache_memory_bytes", "gpu_memory_utilization"))
    sized = sized or "VLLM_CPU_KVCACHE_SPACE" in os.environ
    defaults = {"dtype": "float32", "block_size": 32, **({} if sized else {"kv_cache_memory_bytes": 1 << 30})}
    return {name: value for name, value in defaults.items() if name not in given}


def heed_cache_size(engine_args: Container[str]) -> None:
    """To be called before an engine starts in this process with `engine_args`: where they give the size of its cache in
    bytes, that size counts. vLLM on CPU would take VLLM_CPU_KVCACHE_SPACE instead, of whole GiB.
    """
    if "kv_cache_memory_bytes" in engine_args:
        os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)


def pooling_params(request: PoolRequest):
    """vLLM's parameters of `request`; what our pooler reads of them stands in `extra_kwargs`."""
    from vllm import PoolingParams

    return PoolingParams(
        task="token_classify",
        skip_reading_prefix_cache=not request.read_prefix_cache,
        extra_kwargs=request.extra_kwargs(),
    )


def step_rows(output: Any) -> dict[int, tuple[float, ...]]:
    """Position -> logits of a finished pooling request. A preempted request repeats rows; the same tokens gave them, so
    the last one stands."""
    return {int(position): tuple(logits) for position, *logits in output.outputs.data.tolist()}


def _answer(output: Any) -> PoolAnswer:
    return PoolAnswer(step_rows(output), output.num_cached_tokens or 0)


class OfflineEngine:
    """`vllm.LLM`: a list of requests at once, for scripts and tests."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self.max_model_len: int = llm.model_config.max_model_len

    @classmethod
    def start(cls, engine_args: dict[str, Any]) -> "OfflineEngine":
        """Start `vllm.LLM`; arguments from `engine_arguments`."""
        from vllm import LLM

        register()
        heed_cache_size(engine_args)
        return cls(LLM(**engine_args))

    def pool(self, requests: Sequence[PoolRequest]) -> list[PoolAnswer]:
        """Answers in the order of `requests`."""
        from vllm import TokensPrompt

        prompts = [TokensPrompt(prompt_token_ids=request.token_ids) for request in requests]
        params = [pooling_params(request) for request in requests]
        outputs = self.llm.encode(prompts, params, pooling_task="token_classify", use_tqdm=False)
        return [_answer(output) for output in outputs]

    def reset_prefix_cache(self) -> None:
        """Drop cached keys and values, after a weight update. `RuntimeError` if requests still hold some."""
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not reset its prefix cache: requests are still running")

    def shutdown(self) -> None:
        """Stop the engine and free its memory; the process may start another."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        cleanup_dist_env_and_memory()


class AsyncEngine:
    """`vllm.AsyncLLM`, or any vLLM `EngineClient`: concurrent calls join vLLM's continuous batch."""

    def __init__(self, client: Any, owned: bool = False) -> None:
        self.client = client
        self.owned = owned
        self.max_model_len: int = client.model_config.max_model_len

    def clients(self) -> list[Any]:
        """The vLLM engine clients behind this one."""
        return [self.client]

    @classmethod
    def start(cls, engine_args: dict[str, Any]) -> "AsyncEngine":
        """Start `vllm.AsyncLLM`; arguments from `engine_arguments`. Call from the event loop that will score."""
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        require_entry_point()
        register()
        heed_cache_size(engine_args)
        return cls(AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_args)), owned=True)

    async def pool_one(self, request: PoolRequest) -> PoolAnswer:
        """One answer. Cancelling the call aborts the request in the engine."""
        from vllm.inputs import tokens_input

        prompt, params = tokens_input(request.token_ids), pooling_params(request)
        answer = None
        async for output in self.client.encode(prompt, params, request_id=f"step-rewards-{uuid.uuid4().hex}"):
            answer = _answer(output)
        assert answer is not None, "vLLM ended a pooling request without an output"
        return answer

    async def reset_prefix_cache(self) -> None:
        """Drop cached keys and values, after a weight update. `RuntimeError` if requests still hold some."""
        for _ in range(500):
            if await self.client.reset_prefix_cache():
                return
            # The engine frees the blocks of a finished request one engine step after answering it.
            await asyncio.sleep(0.02)
        raise RuntimeError("vLLM did not reset its prefix cache: requests are still running")

    def shutdown(self) -> None:
        """Stop the engine, if this object started it."""
        if self.owned:
            self.client.shutdown()


def require_entry_point() -> None:
    """Raise `RuntimeError` unless vLLM's other processes will find our architectures.

    AsyncLLM runs the model in a process of its own, which learns of plugins only through installed entry points.
    """
    from importlib.metadata import entry_points

    import vllm.envs as envs

    names = {e.name for e in entry_points(group="vllm.general_plugins") if e.value.startswith("vllm_prm:")}
    if not names:
        raise RuntimeError(
            "no installed distribution offers the vllm.general_plugins entry point of vllm_prm, so vLLM's engine "
            "process could not load the model; install the package (pip install -e . is enough)"
        )
    if envs.VLLM_PLUGINS is not None and not names & set(envs.VLLM_PLUGINS):
        raise ValueError(f"VLLM_PLUGINS is {','.join(envs.VLLM_PLUGINS)!r} and leaves out {sorted(names)}; add it")
