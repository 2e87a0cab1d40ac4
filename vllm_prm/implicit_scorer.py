"""`StepScorer` for implicit PRMs: the model and its reference, an engine each, in one process.

Both engines take the same `engine_args`, but for the family's option `reference_engine_args`. On a GPU they share its
memory: `gpu_memory_utilization` is 0.45 for each unless given, and both together must stay below 1. Token counts in
`usage` are those of both models together.

On a server vLLM runs the model, and the reference is started beside it in the server's process when the endpoint
begins: same lifetime, same health. Its weights are frozen; vLLM's own routes and metrics know the model only.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from vllm_prm.engines import GPU_MEMORY, AsyncEngine, OfflineEngine, PoolAnswer, engine_arguments
from vllm_prm.families import PRMFamily, Rendered
from vllm_prm.log_prob_sums import PairPlan, SpanRequest
from vllm_prm.scorer import StepScorer
from vllm_prm.together import together

PairRequest = tuple[SpanRequest | None, SpanRequest | None]
PairAnswer = tuple[PoolAnswer | None, PoolAnswer | None]


class OfflinePair(OfflineEngine):
    """Two `vllm.LLM`, asked one after the other: in one process they share the same cores or device."""

    def __init__(self, policy: OfflineEngine, reference: OfflineEngine) -> None:
        self.engines = (policy, reference)
        self.max_model_len = min(engine.max_model_len for engine in self.engines)

    def pool(self, requests: Sequence[PairRequest]) -> list[PairAnswer]:
        """Answers in the order of `requests`, None where a model was asked nothing."""
        columns = []
        for number, engine in enumerate(self.engines):
            asked = [pair[number] for pair in requests if pair[number] is not None]
            answers = iter(engine.pool(asked) if asked else ())
            columns.append([None if pair[number] is None else next(answers) for pair in requests])
        return list(zip(*columns, strict=True))

    def reset_prefix_cache(self) -> None:
        """Drop cached keys and values of both."""
        for engine in self.engines:
            engine.reset_prefix_cache()

    def shutdown(self) -> None:
        """Stop both engines and free their memory."""
        for engine in self.engines:
            engine.shutdown()


class AsyncPair(AsyncEngine):
    """Two `vllm.AsyncLLM`, asked at the same time."""

    def __init__(self, policy: AsyncEngine, reference: AsyncEngine) -> None:
        self.engines = (policy, reference)
        self.max_model_len = min(engine.max_model_len for engine in self.engines)

    def clients(self) -> list[Any]:
        """The clients of both."""
        return [client for engine in self.engines for client in engine.clients()]

    async def pool_one(self, request: PairRequest) -> PairAnswer:
        """Both answers, None where a model was asked nothing. Cancelling the call aborts both requests."""

        async def ask(engine: AsyncEngine, asked: SpanRequest | None) -> PoolAnswer | None:
            return None if asked is None else await engine.pool_one(asked)

        return tuple(await together(ask(*pair) for pair in zip(self.engines, request, strict=True)))

    async def reset_prefix_cache(self) -> None:
        """Drop cached keys and values of both."""
        for engine in self.engines:
            await engine.reset_prefix_cache()

    def shutdown(self) -> None:
        """Stop both engines."""
        for engine in self.engines:
            engine.shutdown()


# They name the model's own files; the reference has others.
OF_THE_MODEL = ("tokenizer", "tokenizer_revision", "revision", "code_revision", "hf_config_path", "served_model_name")


class ImplicitScorer(StepScorer):
    """Scores steps with two models; see the family `implicit`."""

    @classmethod
    def check_options(cls, model: str, family: PRMFamily, engine_args: Mapping[str, Any]) -> None:
        """`ValueError` for a `reference_engine_args` that names no engine argument of vLLM, and for shares of memory
        that one device does not have."""
        from vllm import AsyncEngineArgs

        known = {field.name for field in dataclasses.fields(AsyncEngineArgs)} - {"model", "runner"}
        if unknown := sorted(set(family.options.reference_engine_args) - known):
            raise ValueError(f"{model}: reference_engine_args: vLLM has no engine argument {', '.join(unknown)}")
        own = engine_args.get("gpu_memory_utilization", GPU_MEMORY / family.engines)
        other = family.options.reference_engine_args.get("gpu_memory_utilization", own)
        if own + other >= 1:
            raise ValueError(
                f"gpu_memory_utilization: {model} would take {own:g} of a device, its reference {other:g} of the same "
                f"one; together they must stay below 1, and {GPU_MEMORY / family.engines:g} each is the default"
            )

    @classmethod
    def around(cls, client: Any, family: PRMFamily, engine_args: Any) -> AsyncPair:
        """`client` for the model, and an engine like it for the reference."""
        if engine_args is None:
            raise ValueError("a family of two models needs the engine_args of the running one, to start the other")
        overrides = engine_args.hf_overrides if isinstance(engine_args.hf_overrides, dict) else {}
        of_reference = family.options.reference_engine_args.get("hf_overrides", {})
        changed = {
            **dict.fromkeys(OF_THE_MODEL),
            # vLLM's metrics belong to one engine of a process, and this plug-in to one of its models.
            **{"disable_log_stats": True, "io_processor_plugin": None},
            **family.options.reference_engine_args,
            "model": family.options.reference,
            "hf_overrides": {**overrides, **of_reference, **family.reference_overrides()},
        }
        reference = AsyncEngine.start(vars(dataclasses.replace(engine_args, **changed)))
        _live_together(client, reference.client)
        return AsyncPair(AsyncEngine(client), reference)

    @classmethod
    def start(
        cls, model: str, family: PRMFamily, engine: str, engine_args: dict[str, Any], *, score_cache_size: int
    ) -> "ImplicitScorer":
        """Start an engine for `model` and one for the family's reference."""
        one, pair = (OfflineEngine, OfflinePair) if engine == "offline" else (AsyncEngine, AsyncPair)
        policy = one.start(engine_arguments(model, family.hf_overrides(), engine_args, family.engines))
        shared = {name: value for name, value in engine_args.items() if name not in OF_THE_MODEL}
        shared |= family.options.reference_engine_args
        overrides = family.reference_overrides()
        try:
            reference = one.start(engine_arguments(family.options.reference, overrides, shared, family.engines))
        except BaseException:
            policy.shutdown()
            raise
        return cls(pair(policy, reference), family, score_cache_size=score_cache_size)

    def _planned(self, rendered: Rendered) -> PairPlan:
        return PairPlan(rendered, self.score_cache)


def _live_together(client: Any, other: Any) -> None:
    """Whoever stops the engine `client`, or asks whether it is healthy, also stops, or asks after, `other`."""
    stop, check = client.shutdown, client.check_health

    @functools.wraps(stop)
    def shutdown(*args: Any, **kwargs: Any) -> None:
        other.shutdown(*args, **kwargs)
        stop(*args, **kwargs)

    @functools.wraps(check)
    async def check_health() -> None:
        await check()
        await other.check_health()

    client.shutdown, client.check_health = shutdown, check_health
