"""`StepScorer` for PRMs that score each step by prompts of its own; see `families.prefix_family`.

The prompts of a solution begin alike. The longest is asked first, the others when it is in the engine's prefix cache:
so most of their tokens are forwarded once. A step that was scored before costs nothing.
"""

import math
from collections.abc import Sequence

from vllm_prm.engines import AsyncEngine, OfflineEngine, PoolAnswer, PoolRequest, longest_prompt
from vllm_prm.errors import ContextLengthError, StepScoringError
from vllm_prm.families.checkpoint_family import require_list
from vllm_prm.families.prefix_family import Reading
from vllm_prm.families.prm_family import Question, Rendered
from vllm_prm.incremental import ScorePlan
from vllm_prm.scorer import RESTARTS, Scores, ScoringItem, StepScorer, Usage, weights_changed
from vllm_prm.text_bounds import beside_the_loop
from vllm_prm.together import together


class _Prefix:
    """The scoring of one step, from its first prompt on: `request` is what to ask next, None when `score` stands (None:
    beyond the context).
    """

    def __init__(self, scorer: "PrefixScorer", reading: Reading, first: Rendered, truncate: bool) -> None:
        self.scorer, self.reading, self.truncate = scorer, reading, truncate
        self.plans: list[ScorePlan] = []
        self.request: PoolRequest | None = None
        self.score: float | None = None
        self._take(first)

    def absorb(self, answer: PoolAnswer) -> None:
        """Take the answer to `request`."""
        self.plans[-1].absorb(self.request, answer)
        self._ask()

    def _go_on(self, rows: Sequence) -> None:
        try:
            rendered = self.reading.send(rows)
        except StopIteration as done:
            self.request, self.score = None, done.value
            return
        self._take(rendered)

    def _take(self, rendered: Rendered) -> None:
        if not self._fits(rendered):
            self.request = None
            return
        self.plans.append(ScorePlan(rendered, self.scorer.family.reward_token_ids, self.scorer.score_cache))
        self._ask()

    def _ask(self) -> None:
        self.request = self.plans[-1].request()
        if self.request is None:
            self._go_on(self.plans[-1].rows())

    def _fits(self, rendered: Rendered) -> bool:
        limit = longest_prompt(self.scorer.engine.max_model_len)
        if len(rendered.token_ids) <= limit:
            return True
        if self.truncate:
            return False
        raise ContextLengthError(
            f"a step and what stands before it have {len(rendered.token_ids)} tokens, the PRM takes {limit} "
            "(max_model_len - 1); shorten the solution or score with truncate=True"
        )


class PrefixScorer(StepScorer):
    """Scores steps by a prompt, or several, for each prefix."""

    def score(self, items: Sequence[ScoringItem], *, truncate: bool = False) -> list[Scores]:
        """Scores of many solutions, in order, as every scorer's."""
        if not isinstance(self.engine, OfflineEngine):
            raise ValueError("score needs engine='offline'; with engine='async' await score_async")
        pairs = self._pairs(items)
        solutions = [self._prefixes(self._readings(question, steps, truncate), truncate) for question, steps in pairs]
        self._run([longest for prefixes in solutions if (longest := _longest(prefixes)) is not None])
        self._run([prefix for prefixes in solutions for prefix in prefixes])
        return [
            self._finished(prefixes, len(steps), self.usage)
            for prefixes, (_, steps) in zip(solutions, pairs, strict=True)
        ]

    def _run(self, prefixes: Sequence[_Prefix]) -> None:
        while pending := [prefix for prefix in prefixes if prefix.request is not None]:
            answers = self.engine.pool([prefix.request for prefix in pending])
            for prefix, answer in zip(pending, answers, strict=True):
                prefix.absorb(answer)

    async def _score_one(self, question: Question, steps: Sequence[str], truncate: bool, usage: Usage) -> Scores:
        if not isinstance(self.engine, AsyncEngine):
            raise ValueError("score_async needs engine='async'; with engine='offline' call score")

        async def run(prefix: _Prefix) -> None:
            while prefix.request is not None:
                prefix.absorb(await self.engine.pool_one(prefix.request))

        for _ in range(RESTARTS + 1):
            generation = self.score_cache.generation
            readings = await beside_the_loop(self._readings, question, steps, truncate)
            prefixes = self._prefixes(readings, truncate)
            if (longest := _longest(prefixes)) is not None:
                await run(longest)
            await together(map(run, prefixes))
            # Scores of two different weights must never meet in one answer.
            if generation == self.score_cache.generation:
                return self._finished(prefixes, len(steps), usage)
            usage.add(computed_tokens=sum(plan.computed_tokens for prefix in prefixes for plan in prefix.plans))
        raise weights_changed()

    def _readings(self, question: Question, steps: Sequence[str], truncate: bool) -> list[tuple[Reading, Rendered]]:
        """Of each step its reading, and the first prompt of that."""
        require_list(steps)
        steps = self._bounded(question, steps, truncate)
        readings = [self.family.read(question, steps[:count]) for count in range(1, len(steps) + 1)]
        return [(reading, next(reading)) for reading in readings]

    def _prefixes(self, readings: Sequence[tuple[Reading, Rendered]], truncate: bool) -> list[_Prefix]:
        return [_Prefix(self, reading, first, truncate) for reading, first in readings]

    def _finished(self, prefixes: Sequence[_Prefix], total: int, usage: Usage) -> Scores:
        """`total`: how many steps there are; those behind the prefixes are beyond the context."""
        plans = [plan for prefix in prefixes for plan in prefix.plans]
        prompt_tokens = sum(plan.prompt_tokens for plan in plans)
        computed_tokens = sum(plan.computed_tokens for plan in plans)
        usage.add(
            requests=1,
            steps=total,
            prompt_tokens=prompt_tokens,
            computed_tokens=computed_tokens,
            cached_tokens=max(0, prompt_tokens - computed_tokens),
            score_cache_hits=sum(plan.cache_hits for plan in plans),
        )
        scores = [prefix.score for prefix in prefixes]
        if broken := [n for n, score in enumerate(scores) if score is not None and not math.isfinite(score)]:
            raise StepScoringError(f"the PRM gave non-finite scores for steps {broken}; try dtype='float32'")
        return scores + [None] * (total - len(scores))


def _longest(prefixes: Sequence[_Prefix]) -> _Prefix | None:
    """The longest prefix that is still to be asked."""
    return next((prefix for prefix in reversed(prefixes) if prefix.request is not None), None)
