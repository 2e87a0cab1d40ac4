"""A rollout engine that died comes back with the weights of today.

Ray starts its actor again, with the weights that the run began with and without what it was told since. So it says that
it is stale and refuses to write, until the trainer has told it again and sent the policy's weights to all engines. The
questions that were in hand are asked again, all of that rollout: nothing is trained on twice, and nothing is lost.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray

logger = logging.getLogger(__name__)
RESTARTS = {"max_restarts": -1, "max_task_retries": 0}
"""Options of Ray for rollout actors. A task that Ray itself tried again would be answered with old weights."""
ATTEMPTS = 4
"""How often the questions of one rollout are asked before they count as what kills the engine."""
PATIENCE_S = 1800.0


class StaleEngine(RuntimeError):
    """The engine of a rollout actor that has not been sent the policy's weights since it came back."""


def is_loss_of_engine(error: Exception) -> bool:
    """Whether a rollout failed because an engine died."""
    cause = getattr(error, "cause", None)
    return isinstance(error, ray.exceptions.RayActorError) or isinstance(cause, StaleEngine)


def stale(engines: Sequence[Any]) -> list:
    """The actors that came back and know nothing yet, once all are there. Raises what Ray raises of one that cannot
    come back, and RuntimeError where one takes longer than half an hour.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            answers = ray.get([engine.is_stale.remote() for engine in engines])
            return [engine for engine, answer in zip(engines, answers, strict=True) if answer]
        except ray.exceptions.ActorUnavailableError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"a rollout engine that died did not come back within {PATIENCE_S:.0f} s") from None
            time.sleep(1.0)


def join_weight_group(actor: Any) -> None:
    """In the process of a policy actor, by Ray's `__ray_call__`: rank 0 makes the group anew in which it sends weights
    to all engines, of which one was lost with its process.
    """
    import torch

    trainer = actor.trainer
    if trainer.use_cuda_ipc or torch.distributed.get_rank() != 0:
        return
    trainer._init_vllm_sync_group(trainer.strategy.args.vllm.sync_backend)


class AskedAgain:
    """Prompts of a data loader that can be drawn once more. Iterates as the host's loader does: one prompt at a time,
    (source, [prompt], [label], [images]).
    """

    def __init__(self, prompts: Iterator):
        self._prompts = prompts
        self._drawn: list = []
        self._again: Iterator = iter(())

    def __iter__(self) -> "AskedAgain":
        return self

    def __next__(self):
        for drawn in self._again:
            return drawn
        drawn = next(self._prompts)
        self._drawn.append(drawn)
        return drawn

    def rewind(self) -> int:
        """What was drawn so far comes again, before the rest; returns how much."""
        self._again = iter(tuple(self._drawn))
        return len(self._drawn)


def with_revival(generate: Callable[[Iterator], Any], prompts: Iterator, revive: Callable[[], None]) -> Any:
    """`generate(prompts)`, begun again with the same prompts where an engine dies meanwhile, after `revive`.

    Raises the engine's error after `ATTEMPTS` deaths, and every other error at once.
    """
    prompts = AskedAgain(prompts)
    for attempt in itertools.count(1):
        try:
            return generate(prompts)
        except Exception as error:
            if not is_loss_of_engine(error) or attempt == ATTEMPTS:
                raise
            count = prompts.rewind()
            logger.warning(
                "a rollout engine died (%s); it is started again with the policy's weights, and the %d questions of "
                "this rollout are asked again",
                " ".join(str(error).split())[:200],
                count,
            )
            revive()
