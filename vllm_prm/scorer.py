"""`StepScorer`: question and steps in, one score per step out, whichever way the PRM is reached.

    offline   vllm.LLM in this process               score
    async     vllm.AsyncLLM, concurrent calls batch  score_async
    url       a server with POST /v1/step_rewards    score, score_async

Growing and branching solutions are cheap: known steps come from a score cache, the rest of a known prefix from the
engine's prefix cache. Call `reset_cache` after the PRM's weights change.
"""

import inspect
import math
import warnings
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pkgutil import resolve_name
from typing import Any

from vllm_prm import text_bounds
from vllm_prm.checkpoint import TOKENIZER_OPTIONS, load_served_family
from vllm_prm.engines import ENGINE_NAMES, AsyncEngine, OfflineEngine, engine_arguments, longest_prompt
from vllm_prm.errors import ContextLengthError, StepScoringError
from vllm_prm.families import PRMFamily, Rendered
from vllm_prm.families.prm_family import Question
from vllm_prm.incremental import ScorePlan
from vllm_prm.protocol import StepRewardItem
from vllm_prm.score_cache import ScoreCache
from vllm_prm.text_bounds import beside_the_loop
from vllm_prm.weight_updates import forget_on_weight_update

ScoringItem = StepRewardItem | tuple[Question, Sequence[str]]
Scores = list[float | None]

RESTARTS = 5
"""How often a solution is scored again because the weights changed meanwhile."""


@dataclass
class Usage:
    """Running totals. `prompt_tokens`: tokens of the rendered solutions; `computed_tokens`: of these, forwarded by the
    engine (more than once if a cached prefix had to be run again); `cached_tokens`: spared by either cache. The last
    five are of generative PRMs; `malformed`: judgements in their critiques that could not be read."""

    requests: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    cached_tokens: int = 0
    score_cache_hits: int = 0
    generated_tokens: int = 0
    critiques: int = 0
    malformed: int = 0
    empty_critiques: int = 0
    cut_off_critiques: int = 0

    def add(self, **counts: int) -> None:
        """Add to the named totals."""
        for name, count in counts.items():
            setattr(self, name, getattr(self, name) + count)

    def as_dict(self) -> dict[str, int]:
        """The totals as a plain dict, for logs and JSON."""
        return asdict(self)


class StepScorer:
    """Scores reasoning steps with a PRM. Build with `from_pretrained`, `from_engine` or `from_url`.

    Every score is finite; a step that lies beyond the PRM's context raises `ContextLengthError`, or is None with
    `truncate=True`. An empty list of steps has empty scores and reaches no engine.
    """

    def __init__(self, engine: Any, family: PRMFamily | None = None, *, score_cache_size: int = 200_000) -> None:
        self.engine = engine
        self.family = family
        self.usage = Usage()
        self.score_cache = ScoreCache(score_cache_size)

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        family: str | None = None,
        engine: str = "offline",
        *,
        family_options: Mapping[str, Any] | None = None,
        score_cache_size: int = 200_000,
        **engine_args: Any,
    ) -> "StepScorer":
        """Start a vLLM engine for the PRM `model` (a folder or a hub id).

        `family`: a key of `PRM_FAMILIES` or `FILE.py:Class`, by default what the checkpoint shows; `family_options` win
        over those it declares. `engine`: "offline" or "async". `engine_args`: any vLLM engine argument (`dtype`,
        `max_model_len`, `tensor_parallel_size`, ...); inside a Ray actor pass `distributed_executor_backend="uni"`.
        Remembered scores: at most `score_cache_size`, about 300 bytes each. Raises `ValueError` for an unknown family,
        engine or vocabulary.
        """
        if engine not in ENGINE_NAMES:
            raise ValueError(f"engine is {engine!r}, allowed: {list(ENGINE_NAMES)}, or StepScorer.from_url")
        options = {name: engine_args[name] for name in TOKENIZER_OPTIONS if name in engine_args}
        loaded = load_served_family(model, family, options=family_options, **options)
        for guess in loaded.guesses:
            warnings.warn(f"{model}: {guess}", stacklevel=2)
        scorer = resolve_name(loaded.scorer)
        scorer.check_options(model, loaded, engine_args)
        return scorer.start(model, loaded, engine, engine_args, score_cache_size=score_cache_size)

    @classmethod
    def check_options(cls, model: str, family: PRMFamily, engine_args: Mapping[str, Any]) -> None:
        """`ValueError` for options of `family`, and `engine_args`, that vLLM would refuse once an engine runs."""

    @classmethod
    def start(
        cls, model: str, family: PRMFamily, engine: str, engine_args: dict[str, Any], *, score_cache_size: int
    ) -> "StepScorer":
        """Start what `family` needs of `model`, as `from_pretrained` does: here one pooling engine."""
        arguments = engine_arguments(model, family.hf_overrides(), engine_args)
        started = (OfflineEngine if engine == "offline" else AsyncEngine).start(arguments)
        return cls(started, family, score_cache_size=score_cache_size)

    @classmethod
    def from_engine(
        cls, client: Any, family: PRMFamily, *, score_cache_size: int = 200_000, engine_args: Any = None
    ) -> "StepScorer":
        """Score through an already running vLLM `EngineClient` that serves `family`.

        Others may hold `client` too: scores are forgotten when its weights may have changed, see
        `forget_on_weight_update`. `engine_args`: the `AsyncEngineArgs` of `client`, for a family of two models, whose
        second engine is started here; it lives as long as `client`.
        """
        scorer_class = resolve_name(family.scorer)
        engine = scorer_class.around(client, family, engine_args)
        scorer = scorer_class(engine, family, score_cache_size=score_cache_size)
        forget_on_weight_update(client, scorer.score_cache.clear)
        return scorer

    @classmethod
    def around(cls, client: Any, family: PRMFamily, engine_args: Any) -> AsyncEngine:
        """What `from_engine` scores with."""
        return AsyncEngine(client)

    @classmethod
    def from_url(cls, url: str, api_key_env: str | None = None, **options: Any) -> "StepScorer":
        """Score through a server's `POST {url}/v1/step_rewards`.

        `api_key_env`: name of the environment variable that holds the API key; with `_FILE` behind it, of one that
        names a file with the key. `options`: those of `HTTPService`
        (`model`, `timeout`, `patience`, `max_connections`). `ValueError` if the variable is not set.
        """
        from vllm_prm.http_service import HTTPService

        return cls(HTTPService(url, api_key_env, **options))

    # -- scoring ------------------------------------------------------------------------------------------------

    def score(self, items: Sequence[ScoringItem], *, truncate: bool = False) -> list[Scores]:
        """Scores of many solutions, in order: items `(question, steps)` or `StepRewardItem` -> S_i scores each.

        For the offline engine and for a server. Raises `ContextLengthError`, `ValueError`, `StepScoringError`.
        """
        pairs = self._pairs(items)
        if self.family is None:
            return self.engine.score(pairs, truncate, self.usage)
        if not isinstance(self.engine, OfflineEngine):
            raise ValueError("score needs engine='offline' or a server; with engine='async' await score_async")
        plans = [self._plan(question, steps, truncate) for question, steps in pairs]
        # A plan asks again only where a cached prefix hid a score.
        while pending := [(plan, request) for plan, _ in plans if plan and (request := plan.request())]:
            answers = self.engine.pool([request for _, request in pending])
            for (plan, request), answer in zip(pending, answers, strict=True):
                plan.absorb(request, answer)
        return [self._finish(plan, total, self.usage) for plan, total in plans]

    def _pairs(self, items: Sequence[ScoringItem]) -> list[tuple[Question, list[str]]]:
        splitter = None if self.family is None else self.family.response_splitter
        return [question_and_steps(item, splitter) for item in items]

    def output_fields(self, items: Sequence[ScoringItem], *, truncate: bool = False) -> list[dict[str, Any]]:
        """What `vllm-prm score` writes for each solution: `step_rewards`, and what this scorer has to say beside."""
        if self.family is None:
            return self.engine.output_fields(self._pairs(items), truncate, self.usage)
        return [{"step_rewards": scores} for scores in self.score(items, truncate=truncate)]

    async def output_fields_async(
        self, question: Question, steps: Sequence[str], *, truncate: bool, usage: Usage
    ) -> dict[str, Any]:
        """The same for one solution, and what `POST /v1/step_rewards` answers; as `score_async` otherwise."""
        return {"step_rewards": await self.score_async(question, steps, truncate=truncate, usage=usage)}

    async def score_async(
        self, question: Question, steps: Sequence[str], *, truncate: bool = False, usage: Usage | None = None
    ) -> Scores:
        """Scores of one solution, S steps -> S scores. Concurrent calls share the engine's batch.

        `usage`, when given, also receives this call's counts. Raises as `score` does; cancelling the call aborts the
        request.
        """
        if usage is not None:
            of_call = Usage()
            scores = await self._score_one(question, steps, truncate, of_call)
            usage.add(**of_call.as_dict())
            self.usage.add(**of_call.as_dict())
            return scores
        return await self._score_one(question, steps, truncate, self.usage)

    async def _score_one(self, question: Question, steps: Sequence[str], truncate: bool, usage: Usage) -> Scores:
        if self.family is None:
            return await self.engine.score_async(question, steps, truncate, usage)
        if not isinstance(self.engine, AsyncEngine):
            raise ValueError("score_async needs engine='async' or a server; with engine='offline' call score")
        for _ in range(RESTARTS + 1):
            plan, total = await self._plan_async(question, steps, truncate)
            while plan and (request := plan.request()):
                plan.absorb(request, await self.engine.pool_one(request))
            # Scores of two different weights must never meet in one answer.
            if plan is None or plan.is_current():
                return self._finish(plan, total, usage)
            usage.add(computed_tokens=plan.computed_tokens)
        raise weights_changed()

    def _plan(self, question: Question, steps: Sequence[str], truncate: bool) -> tuple[ScorePlan | None, int]:
        rendered = self._rendered(question, steps, truncate)
        return (None if rendered is None else self._planned(rendered)), len(steps)

    async def _plan_async(
        self, question: Question, steps: Sequence[str], truncate: bool
    ) -> tuple[ScorePlan | None, int]:
        """`_plan`, with a long text tokenised beside the event loop."""
        rendered = await beside_the_loop(self._rendered, question, steps, truncate)
        return (None if rendered is None else self._planned(rendered)), len(steps)

    def _rendered(self, question: Question, steps: Sequence[str], truncate: bool) -> Rendered | None:
        """The solution as far as it fits; None where no step does."""
        limit = longest_prompt(self.engine.max_model_len)
        given, steps = steps, self._bounded(question, steps, truncate)
        if given and not steps:
            return None
        rendered = self.family.render(question, steps)
        if len(rendered.token_ids) > limit:
            if not truncate:
                raise ContextLengthError(
                    f"the solution has {len(rendered.token_ids)} tokens in {len(steps)} steps, the PRM takes "
                    f"{limit} (max_model_len - 1); shorten it or score with truncate=True"
                )
            fitting = bisect_left(rendered.step_positions, limit)
            rendered = replace(
                rendered, token_ids=rendered.token_ids[:limit], step_positions=rendered.step_positions[:fitting]
            )
        return rendered if rendered.step_positions else None

    def _bounded(self, question: Question, steps: Sequence[str], truncate: bool) -> Sequence[str]:
        """The steps that are worth tokenising; see `text_bounds.fitting`."""
        limit = longest_prompt(self.engine.max_model_len)
        return text_bounds.fitting(question, steps, self._most_characters, limit, truncate)

    @cached_property
    def _most_characters(self) -> int:
        return text_bounds.most_characters(self.family, longest_prompt(self.engine.max_model_len))

    def _planned(self, rendered: Rendered) -> ScorePlan:
        return ScorePlan(rendered, self.family.reward_token_ids, self.score_cache)

    def _finish(self, plan: ScorePlan | None, total: int, usage: Usage) -> Scores:
        if plan is None:
            usage.add(requests=1, steps=total)
            return [None] * total
        usage.add(
            requests=1,
            steps=total,
            prompt_tokens=plan.prompt_tokens,
            computed_tokens=plan.computed_tokens,
            cached_tokens=max(0, plan.prompt_tokens - plan.computed_tokens),
            score_cache_hits=plan.cache_hits,
        )
        scores = self.family.decode(plan.rows())
        broken = [index for index, score in enumerate(scores) if not math.isfinite(score)]
        if broken:
            raise StepScoringError(f"the PRM gave non-finite scores for steps {broken}; try dtype='float32'")
        return scores + [None] * (total - len(scores))

    # -- life ---------------------------------------------------------------------------------------------------

    async def reset_cache_async(self) -> None:
        """Forget every score and every cached prefix: call after the PRM's weights changed (AsyncLLM or a server)."""
        self.score_cache.clear()
        pending = self.engine.reset_prefix_cache()
        if inspect.isawaitable(pending):
            await pending

    def reset_cache(self) -> None:
        """Forget every score and every cached prefix: call after the PRM's weights changed (offline)."""
        if isinstance(self.engine, AsyncEngine):
            raise ValueError("with engine='async' await reset_cache_async")
        self.score_cache.clear()
        self.engine.reset_prefix_cache()

    def shutdown(self) -> None:
        """Stop the engine this scorer started, or close its connections."""
        self.engine.shutdown()


def weights_changed() -> StepScoringError:
    """The error after the last restart."""
    return StepScoringError(f"the PRM's weights changed {RESTARTS + 1} times while one solution was being scored")


def question_and_steps(item: ScoringItem, splitter: str | None) -> tuple[Question, list[str]]:
    """The two parts of `item`; `splitter` as in `StepRewardItem.solution_steps`."""
    if isinstance(item, StepRewardItem):
        return item.asked(), item.solution_steps(splitter)
    question, steps = item
    return question, steps
