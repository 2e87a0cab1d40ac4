"""Questions over engines: who works on what, and what happens when an engine dies. Knows neither Ray nor vLLM."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from openrlhf_prm.annotation.records import AnnotatedQuestion
from openrlhf_prm.data.questions import Question


class EngineLost(Exception):
    """An engine died with a question in hand."""


class AnnotationEngine(Protocol):
    """What the scheduler asks of an engine. Any number of questions may be in its hands at a time."""

    async def annotate(self, question: Question) -> AnnotatedQuestion:
        """Raises EngineLost where the engine died, anything else where the question or the program is at fault."""

    async def recover(self) -> None:
        """Returns when a working engine stands in the place of the lost one; raises when there will be none."""


async def annotate_all(
    questions: Sequence[Question],
    engines: Sequence[AnnotationEngine],
    in_flight: int,
    finish: Callable[[Question, AnnotatedQuestion], None],
    attempts: int = 4,
) -> int:
    """Has every question annotated once, `in_flight` of them in the hands of each engine; returns how often a question
    was tried again.

    Each engine takes the next question when one of its `in_flight` places is free, so fast engines do more, and a
    question stays with one engine, whose prefix cache knows it. `finish` is called as each question is finished. The
    questions of an engine that died go back and are taken by whoever is free.

    Raises the first error of an engine, and RuntimeError for a question in whose presence engines died `attempts`
    times: it may be what kills them.
    """
    waiting: asyncio.Queue[Question] = asyncio.Queue()
    for question in questions:
        waiting.put_nowait(question)
    losses: Counter[str] = Counter()

    async def work(engine: AnnotationEngine) -> None:
        while True:
            question = await waiting.get()
            try:
                result = await engine.annotate(question)
            except EngineLost as error:
                losses[question.id] += 1
                if losses[question.id] == attempts:
                    text = f"question {question.id} ({question.question[:40]!r}...)"
                    raise RuntimeError(f"engines died {attempts} times with {text} in hand: {error}") from error
                waiting.put_nowait(question)
                await engine.recover()
            else:
                finish(question, result)
            waiting.task_done()  # a question that went back was counted again

    # One place per engine after the other, so that few questions are spread over all engines.
    places = min(in_flight, -(-len(questions) // len(engines)))
    workers = [asyncio.ensure_future(work(engine)) for _ in range(places) for engine in engines]
    everything = asyncio.ensure_future(waiting.join())
    try:
        await asyncio.wait([everything, *workers], return_when=asyncio.FIRST_COMPLETED)
        for worker in workers:
            if worker.done():
                worker.result()  # raises: workers end by errors only
    finally:
        for task in (everything, *workers):
            task.cancel()
        await asyncio.gather(everything, *workers, return_exceptions=True)
    return losses.total()
