"""Ray: engines that generate and engines that score, as actors, and the pools that spread work over them.

An actor holds one vLLM engine (`AsyncLLM`), so its requests are batched as they arrive. A pool sends each request to
the worker with the fewest in flight. A worker whose engine dies ends; Ray starts it again (`max_restarts`) and hands it
once more what it had in hand (`max_task_retries`).
"""

import asyncio
import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import ray

from openrlhf_prm.cluster.absence import answer_of, answers_of
from openrlhf_prm.cluster.accelerator import on_cpu
from openrlhf_prm.cluster.engine_options import EngineOptions
from openrlhf_prm.cluster.spawning import Place, end_without_engine, see_own_gpus, spawn
from vllm_prm.engines import heed_cache_size
from vllm_prm.extension_files import absolute
from vllm_prm.parent_watch import end_engines_with_this_process, end_with_parent

logger = logging.getLogger(__name__)
RESTARTS = {"max_restarts": -1, "max_task_retries": 3}
"""Options of Ray's actors, for engines that die."""


@dataclass(frozen=True)
class Completion:
    """One sampled continuation: its text, its tokens, and whether it was cut at the token limit."""

    text: str
    token_ids: list[int]
    truncated: bool


class UnfinishedCompletion(RuntimeError):
    """A sample that ended neither by itself nor at the token limit: it says nothing about the policy."""


def was_cut(finish_reason: str | None) -> bool:
    """Whether a sample ended at the token limit. Raises UnfinishedCompletion where it did not end at all: aborted,
    filtered, failed.
    """
    if finish_reason not in ("stop", "length"):
        raise UnfinishedCompletion(f"a sample ended by {finish_reason!r}, neither by itself nor at the token limit")
    return finish_reason == "length"


class GenerationWorker:
    """Ray actor around a generating vLLM engine with prefix caching, so continuations of one prefix share its KV
    cache.
    """

    async def __init__(self, options: EngineOptions):
        see_own_gpus()
        import vllm

        end_with_parent()
        end_engines_with_this_process()
        # vLLM 0.29 on CPU dies when the prompt of a request with a seed is prefilled in several chunks ("CPU Generator
        # does not use offset"), as happens when many prompts of real length come at once.
        whole_prompts = {"enable_chunked_prefill": False} if on_cpu() else {}
        args = {"enable_prefix_caching": True, "seed": options.seed, **whole_prompts, **options.engine_args()}
        heed_cache_size(args)
        self.engine = vllm.AsyncLLMEngine.from_engine_args(vllm.AsyncEngineArgs(model=options.model, **args))
        self.numbers = itertools.count()

    async def ready(self) -> bool:
        return True

    async def generate(self, prompt: str | list[int], sampling: dict) -> list[Completion]:
        """`sampling` is vLLM's SamplingParams as a dict (n, temperature, top_p, max_tokens, seed, stop...).

        Samples that did not end are taken again, twice; then UnfinishedCompletion is raised.
        """
        try:
            for _ in range(2):
                try:
                    return await self._generate(prompt, sampling)
                except UnfinishedCompletion as error:
                    logger.warning(f"{error}; taken again")
            return await self._generate(prompt, sampling)
        except Exception as error:
            end_without_engine(error)
            raise

    async def _generate(self, prompt: str | list[int], sampling: dict) -> list[Completion]:
        import vllm

        final = None
        tokens = prompt if isinstance(prompt, list) else await self._encode(prompt)
        request = {"prompt_token_ids": tokens}
        # Streamed outputs hold only the samples that moved in that engine step; the final one holds all n.
        params = vllm.SamplingParams(**sampling, output_kind=vllm.sampling_params.RequestOutputKind.FINAL_ONLY)
        async for output in self.engine.generate(request, params, f"g{next(self.numbers)}"):
            final = output
        return [Completion(out.text, list(out.token_ids), was_cut(out.finish_reason)) for out in final.outputs]

    async def _encode(self, prompt: str) -> list[int]:
        # As the host's rollout does: the prompt text is final, no special token is added to it.
        tokenizer = self.engine.get_tokenizer()
        if asyncio.iscoroutine(tokenizer):
            tokenizer = await tokenizer
        return tokenizer(prompt, add_special_tokens=False)["input_ids"]


class PRMWorker:
    """Ray actor around a scoring vLLM engine. One that `sleeps` frees its GPU memory between `sleep` and `wake_up`, or
    whatever is scored next.
    """

    async def __init__(
        self, options: EngineOptions, family: str | None = None, sleeps: bool = False, place: Place | None = None
    ):
        see_own_gpus(place)
        end_with_parent()
        end_engines_with_this_process()
        self.options, self.family, self.sleeps, self.place = options, family, sleeps, place
        self.scorer = None
        self.asleep = False
        self.turning = asyncio.Lock()
        # One that comes back may find its GPU full of what is being trained, and starts when it is woken.
        if not (sleeps and ray.get_runtime_context().was_current_actor_reconstructed):
            self._start()

    async def ready(self) -> bool:
        return True

    async def score_all(self, solutions: list[tuple[str, list[str]]]) -> list[list[float] | Exception]:
        """For each question with its steps, their scores, or the error that this solution made."""
        await self.wake_up()
        calls = (self.scorer.score_async(question, steps) for question, steps in solutions)
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            end_without_engine(result)
        return results

    async def usage(self) -> dict:
        return self.scorer.usage.as_dict()

    async def wake_up(self) -> None:
        """Returns with an engine that scores."""
        async with self.turning:
            if self.scorer is None:
                self._start()
            if self.asleep:
                await self._turn("wake_up")
                self.asleep = False

    async def sleep(self) -> None:
        """The weights go to the machine's memory, and keys and values are dropped; on CPU the engine only pauses."""
        async with self.turning:
            if self.scorer is not None and not self.asleep:
                await self._turn("sleep")
                self.asleep = True

    async def _turn(self, method: str) -> None:
        try:
            for client in self.scorer.engine.clients():
                await getattr(client, method)()
        except Exception as error:
            end_without_engine(error)
            raise

    def _start(self) -> None:
        from vllm.platforms import current_platform

        from vllm_prm.checkpoint import load_served_family
        from vllm_prm.scorer import StepScorer

        options = self.options
        args = options.engine_args(load_served_family(options.model, self.family).engines)
        if self.place is not None and self.place.split:
            args["distributed_executor_backend"] = "ray"
        if self.sleeps and current_platform.is_sleep_mode_available():
            args["enable_sleep_mode"] = True
        self.scorer = StepScorer.from_pretrained(options.model, family=self.family, engine="async", **args)


class WorkerPool:
    """Sends each call to the worker with the fewest calls in flight from this process."""

    def __init__(self, workers: Sequence):
        self.workers = list(workers)
        self.in_flight = [0] * len(self.workers)

    async def call(self, method: str, *args):
        """Awaits `method(*args)` on the least loaded worker, also while Ray brings it back; a worker's error is raised
        here.
        """
        index = min(range(len(self.workers)), key=self.in_flight.__getitem__)
        self.in_flight[index] += 1
        try:
            return await answer_of(self.workers[index], method, *args)
        finally:
            self.in_flight[index] -= 1


class GenerationPool(WorkerPool):
    """Engines that sample continuations. `name`: of the actors, where there are several pools."""

    def __init__(self, options: EngineOptions, name: str = "generation"):
        super().__init__(spawn(GenerationWorker, name, options, **RESTARTS))

    async def generate(self, prompt: str | list[int], **sampling) -> list[Completion]:
        return await self.call("generate", prompt, sampling)


class ScoringPool(WorkerPool):
    """Engines that score steps. Built from the actors' handles, so that it can travel to the processes that use it.

    A solution goes out at once where a worker has room (`MOST_CALLS`); those that come while none has go out together
    when one has. With a small PRM a call through Ray and a pass of the engine cost more than the solution in it, and
    take their time from the policy's engine where both share a device.
    """

    MOST_CALLS = 2  # for each worker: one being scored, one ready when that is done
    MOST_SOLUTIONS = 64

    def __init__(self, workers: Sequence):
        super().__init__(workers)
        self._waiting: list[tuple[tuple[str, list[str]], asyncio.Future]] = []
        self._senders: set[asyncio.Task] = set()

    @classmethod
    def start(
        cls,
        options: EngineOptions,
        family: str | None = None,
        sleeps: bool = False,
        places: Sequence[Place] | None = None,
    ) -> "ScoringPool":
        """Engines on GPUs of their own, or at `places`."""
        family = None if family is None else absolute(family)  # workers may run in another folder
        return cls(spawn(PRMWorker, "prm", options, family, sleeps, places=places, **RESTARTS))

    async def score(self, question: str, steps: list[str]) -> list[float]:
        """Scores of one solution; the error that it made, or that of the worker, is raised here."""
        if not steps:
            return []
        scores = asyncio.get_running_loop().create_future()
        self._waiting.append(((question, steps), scores))
        if len(self._senders) < self.MOST_CALLS * len(self.workers):
            sender = asyncio.ensure_future(self._send_waiting())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return await scores

    async def _send_waiting(self) -> None:
        """One call after the other, until nothing waits."""
        while self._waiting:
            size = min(math.ceil(len(self._waiting) / len(self.workers)), self.MOST_SOLUTIONS)
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            try:
                results = await self.call("score_all", [solution for solution, _ in batch])
            except Exception as error:  # to those who wait for it
                results = [error] * size
            for (_, scores), result in zip(batch, results, strict=True):
                if scores.done():  # its caller was cancelled
                    continue
                if isinstance(result, BaseException):
                    scores.set_exception(result)
                else:
                    scores.set_result(result)

    def wake_up(self) -> None:
        """Returns when every worker scores."""
        answers_of(self.workers, "wake_up")

    def sleep(self) -> None:
        """Returns when every worker has given its GPU memory back."""
        answers_of(self.workers, "sleep")

    def usage(self) -> dict[str, int]:
        """The workers' counters, summed."""
        counters = answers_of(self.workers, "usage")
        return {key: sum(counter[key] for counter in counters) for key in counters[0]}
