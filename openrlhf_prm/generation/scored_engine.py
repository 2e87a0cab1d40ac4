"""A sampling engine whose candidates come back with step scores."""

import asyncio
from dataclasses import replace
from typing import Any

from openrlhf_prm.data.questions import Question
from openrlhf_prm.generation.sampler import Candidate, SampledQuestion


class ScoredEngine:
    """An `annotation.scheduler.AnnotationEngine` in front of another one and a PRM.

    `prm` has `async score(question, steps) -> list[float]`. A question's candidates are scored the moment it is
    sampled, while the engine goes on with others.
    """

    def __init__(self, engine: Any, prm: Any):
        self.engine = engine
        self.prm = prm

    async def annotate(self, question: Question) -> SampledQuestion:
        """Raises what the engine and the PRM raise."""
        sampled = await self.engine.annotate(question)

        async def scored(candidate: Candidate) -> Candidate:
            return replace(candidate, step_scores=await self.prm.score(question.question, candidate.steps))

        return replace(sampled, candidates=list(await asyncio.gather(*map(scored, sampled.candidates))))

    async def recover(self) -> None:
        """As the engine."""
        await self.engine.recover()
