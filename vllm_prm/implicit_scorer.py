"""`StepScorer` for implicit PRMs: the model and its reference, an engine each, in one process.

Both engines take the same `engine_args`; on a GPU they share its memory, so `gpu_memory_utilization` (vLLM's default is
0.9) must be below a half. Token counts in `usage` are those of both models together.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from vllm_prm.engines import AsyncEngine, OfflineEngine, PoolAnswer, engine_arguments
from vllm_prm.families import PRMFamily, Rendered
from vllm_prm.log_prob_sums import PairPlan, SpanRequest
from vllm_prm.scorer import StepScorer

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

    async def pool_one(self, request: PairRequest) -> PairAnswer:
        """Both answers, None where a model was asked nothing. Cancelling the call aborts both requests."""

        async def ask(engine: AsyncEngine, asked: SpanRequest | None) -> PoolAnswer | None:
            return None if asked is None else await engine.pool_one(asked)

        tasks = [asyncio.ensure_future(ask(*pair)) for pair in zip(self.engines, request, strict=True)]
        try:
            return tuple(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def reset_prefix_cache(self) -> None:
        """Drop cached keys and values of both."""
        for engine in self.engines:
            await engine.reset_prefix_cache()

    def shutdown(self) -> None:
        """Stop both engines."""
        for engine in self.engines:
            engine.shutdown()


class ImplicitScorer(StepScorer):
    """Scores steps with two models; see the family `implicit`."""

    @classmethod
    def start(
        cls, model: str, family: PRMFamily, engine: str, engine_args: dict[str, Any], *, score_cache_size: int
    ) -> "ImplicitScorer":
        """Start an engine for `model` and one for the family's reference."""
        one, pair = (OfflineEngine, OfflinePair) if engine == "offline" else (AsyncEngine, AsyncPair)
        policy = one.start(engine_arguments(model, family.hf_overrides(), engine_args))
        # These name the model's own tokenizer and revision.
        shared = {k: v for k, v in engine_args.items() if k not in ("tokenizer", "tokenizer_revision", "revision")}
        try:
            reference = one.start(engine_arguments(family.options.reference, family.reference_overrides(), shared))
        except BaseException:
            policy.shutdown()
            raise
        return cls(pair(policy, reference), family, score_cache_size=score_cache_size)

    def _planned(self, rendered: Rendered) -> PairPlan:
        return PairPlan(rendered, self.score_cache)
