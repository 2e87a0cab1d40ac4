"""Ray: annotation engines as actors. An actor holds one vLLM engine, or one URL, and annotates whole questions beside
it in its own event loop, so that the rollouts of a question, its tree and its answer checks never leave the process:
what travels is a question and its labels. More engines are more loops, more checkers and more labels.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from openrlhf_prm.annotation.rollouts import NoTokenLimit
from openrlhf_prm.annotation.scheduler import EngineLost
from openrlhf_prm.annotation.url_engine import UrlEngine
from openrlhf_prm.cluster.absence import answer_of
from openrlhf_prm.cluster.accelerator import on_cpu
from openrlhf_prm.cluster.engine_options import EngineOptions
from openrlhf_prm.cluster.spawning import spawn, until_ready
from openrlhf_prm.cluster.workers import Completion, GenerationWorker
from openrlhf_prm.data.questions import Question


@dataclass(frozen=True)
class Work:
    """What an annotation actor does with a question: a class such as those in `ANNOTATORS`, built in the actor with its
    engine, and with the tokenizer and the answer checker of these names.
    """

    policy: str
    annotator: type
    options: object
    answer_checker: str


class _AnnotationActor:
    """What both kinds of actor share. Subclasses set `self.engine`."""

    def _build_annotator(self, work: Work, engine, tokenizer) -> None:
        from openrlhf_prm.answers.checkers import answer_checker

        self.annotator = work.annotator(engine, tokenizer, answer_checker(work.answer_checker), work.options)

    async def annotate(self, prompt: str, label: str) -> Any:
        return await self.annotator.annotate(prompt, label)

    async def pid(self) -> int:
        return os.getpid()


class LocalAnnotationActor(_AnnotationActor, GenerationWorker):
    """Ray actor around a generating vLLM engine of its own."""

    async def __init__(self, options: EngineOptions, work: Work):
        from transformers import AutoTokenizer

        # Small problems are shorter than the 128 tokens of a block on CPU, and only whole blocks are cached.
        small_blocks = {"block_size": 32} if on_cpu() else {}
        extra = {**small_blocks, **options.extra}
        await GenerationWorker.__init__(self, EngineOptions(**{**vars(options), "extra": extra}))
        self._build_annotator(work, _InProcess(self), AutoTokenizer.from_pretrained(work.policy))

    async def cache_counters(self) -> tuple[int, int]:
        """Prompt tokens found in the KV cache, and prompt tokens in all, since the engine started."""
        from vllm.v1.metrics.reader import get_metrics_snapshot

        totals = {"vllm:prefix_cache_hits": 0, "vllm:prefix_cache_queries": 0}
        for metric in get_metrics_snapshot():
            if metric.name in totals:
                totals[metric.name] += metric.value
        hits, queries = totals.values()
        return hits, queries


class _InProcess:
    """The engine that an annotator asks, of the actor it lives in."""

    def __init__(self, worker: GenerationWorker):
        self.worker = worker
        self.context = worker.engine.model_config.max_model_len
        """Tokens of a prompt and its response together, at most."""

    async def generate(self, prompt: list[int], **sampling) -> list[Completion]:
        # The annotator decodes prefix and continuation together; text of the continuation alone is not needed.
        return await self.worker.generate(prompt, {**sampling, "detokenize": False})


class UrlAnnotationActor(_AnnotationActor):
    """Ray actor that annotates over an engine behind a URL."""

    async def __init__(self, url: str, work: Work):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(work.policy)
        self.engine = UrlEngine(url, tokenizer)
        self._build_annotator(work, self.engine, tokenizer)

    async def ready(self) -> bool:
        await self.engine.ready()
        if self.annotator.options.max_new_tokens is None and self.engine.context is None:
            raise NoTokenLimit(
                f"--annotation.urls: {self.engine.url} does not say how long its context is, so "
                "--rollout.max_new_tokens is needed"
            )
        return True

    async def cache_counters(self) -> tuple[int, int]:
        return await self.engine.cache_counters()


class RayEngine:
    """An actor as the scheduler sees it (`scheduler.AnnotationEngine`). Ray restarts an actor that died; `recover`
    waits for it.
    """

    def __init__(self, actor, prompt_of: Callable[[str], str]):
        self.actor = actor
        self.prompt_of = prompt_of

    async def annotate(self, question: Question) -> Any:
        try:
            return await self.actor.annotate.remote(self.prompt_of(question.question), question.label)
        except ray.exceptions.RayActorError as error:
            raise EngineLost(str(error).strip().splitlines()[0]) from error

    async def recover(self) -> None:
        await answer_of(self.actor, "ready")  # an actor that cannot start raises ActorDiedError

    async def cache_counters(self) -> tuple[int, int]:
        """(0, 0) where the engine is just being replaced."""
        try:
            return await self.actor.cache_counters.remote()
        except ray.exceptions.RayActorError:
            return 0, 0


def start_engines(
    options: EngineOptions, urls: Sequence[str], work: Work, in_flight: int, prompt_of: Callable[[str], str]
) -> list[RayEngine]:
    """One actor per URL, or where there are none `options.num_engines` with an engine of their own, once all are ready.
    What is waited for is said.

    Raises NoTokenLimit where neither the options nor a server limits a response, and what an engine raises.
    """
    # Room for the calls that ask how an engine is, beside the questions.
    common = {"max_restarts": -1, "max_task_retries": 0, "max_concurrency": max(1000, in_flight + 16)}
    if urls:
        remote = ray.remote(UrlAnnotationActor).options(num_cpus=0, **common)
        actors = [remote.remote(url, work) for url in urls]
        try:
            until_ready(actors, "annotation", 0)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, NoTokenLimit) else error from None
    else:
        actors = spawn(LocalAnnotationActor, "annotation", options, work, **common)
    return [RayEngine(actor, prompt_of) for actor in actors]
