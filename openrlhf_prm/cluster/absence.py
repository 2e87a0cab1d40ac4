"""Workers that are away for a while: their process died and Ray starts it again, or their node is lost.

Ray tries a call again a few times (`max_task_retries`), all of them within seconds, and takes a node for lost half a
minute after it was. Where nothing is free for the worker, Ray waits, and says so to nobody.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import ray

logger = logging.getLogger(__name__)
LOOK_S = 60.0
PAUSE_S = 2.0
PATIENCE_S = 1800.0


class Absence:
    """How long one worker has been away."""

    def __init__(self) -> None:
        self.since: float | None = None
        self._said = 0.0

    def over(self) -> None:
        self.since = None

    def goes_on(self, at_least: float = 0.0) -> None:
        """It is still away, or has been for so many seconds. Says so, and what is free; raises RuntimeError after
        `PATIENCE_S`.
        """
        now = time.monotonic()
        self.since = now - at_least if self.since is None else self.since
        away = now - self.since
        if away > PATIENCE_S:
            raise RuntimeError(f"an engine that died did not come back within {PATIENCE_S:.0f} s: {free()}")
        if now >= self._said + LOOK_S:
            self._said = now
            logger.warning("an engine does not answer, for %.0f s so far: it starts, or is lost; %s", away, free())


async def answer_of(worker: Any, method: str, *args: Any) -> Any:
    """`method(*args)` of an actor with a method `ready`, asked again where Ray says that it is on its way.

    Raises the worker's error, and RuntimeError where it is away for `PATIENCE_S`.
    """
    absence = Absence()
    while True:
        asked = asyncio.ensure_future(_awaited(getattr(worker, method).remote(*args)))
        try:
            while not (await asyncio.wait({asked}, timeout=LOOK_S))[0]:
                absence.over() if await _is_here(worker) else absence.goes_on(LOOK_S)
            return asked.result()
        except ray.exceptions.ActorUnavailableError:
            absence.goes_on()
        finally:
            asked.cancel()
        await asyncio.sleep(PAUSE_S)


def answers_of(workers: Sequence[Any], method: str) -> list:
    """The same of several workers, for who has no event loop."""
    absence = Absence()
    while True:
        try:
            waiting = [getattr(worker, method).remote() for worker in workers]
            while ray.wait(waiting, num_returns=len(waiting), timeout=LOOK_S)[1]:
                absence.goes_on(LOOK_S)
            return ray.get(waiting)
        except ray.exceptions.ActorUnavailableError:
            absence.goes_on()
        time.sleep(PAUSE_S)


async def _awaited(answer: Any) -> Any:
    return await answer


async def _is_here(worker: Any) -> bool:
    try:
        return await asyncio.wait_for(_awaited(worker.ready.remote()), LOOK_S)
    except (TimeoutError, ray.exceptions.ActorUnavailableError):
        return False


def free() -> str:
    """What the cluster has left, for messages."""
    left, total = ray.available_resources(), ray.cluster_resources()
    there = (f"{left.get(kind, 0):g} of {total.get(kind, 0):g} {kind}s" for kind in ("GPU", "CPU"))
    return f"free are {' and '.join(there)} of the cluster"
