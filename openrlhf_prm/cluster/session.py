"""Ray for an evaluation: starting it, and the engines of one policy after the other's."""

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import ray

from openrlhf_prm.cluster.accelerator import on_cpu
from openrlhf_prm.cluster.checks import TooFewGPUs
from openrlhf_prm.cluster.engine_preflight import Engines, require_room
from openrlhf_prm.cluster.joining import join
from openrlhf_prm.cluster.nodes import of_ray
from openrlhf_prm.cluster.spawning import found_from_anywhere
from openrlhf_prm.cluster.visibility import require_seen_by_nodes
from openrlhf_prm.cluster.workers import EngineOptions, GenerationPool
from vllm_prm.interrupts import end_as_after_ctrl_c


def start_ray(engines: Engines, show_logs: bool = False, paths: Sequence[tuple[str, str]] = ()) -> None:
    """Starts Ray, or joins the cluster this process belongs to. On CPU, outside a cluster, it is always a Ray of our
    own.

    Raises TooFewGPUs where Ray has no room for the engines, whose actors would wait for ever, or a GPU none for their
    models; and NotSeen where a node lacks one of `paths`, the flags with what they name.
    """
    if not ray.is_initialized():
        alone = on_cpu() and "RAY_ADDRESS" not in os.environ
        join(alone=alone, include_dashboard=False, log_to_driver=show_logs, logging_level="warning")
        end_as_after_ctrl_c()
    try:
        require_room(engines, of_ray(memory=not on_cpu()))
    except ValueError as error:
        raise TooFewGPUs(str(error)) from None
    require_seen_by_nodes([(flag, found_from_anywhere(path)) for flag, path in paths if Path(path).exists()])


@contextlib.contextmanager
def ray_session(engines: Engines, paths: Sequence[tuple[str, str]] = ()):
    """`start_ray` before the block and the end of Ray behind it, which after Ctrl-C says nothing of what was in flight.

    Raises TooFewGPUs and NotSeen.
    """
    start_ray(engines, paths=paths)
    try:
        yield
    except KeyboardInterrupt:
        with silent_stderr():
            ray.shutdown()
        raise
    finally:
        ray.shutdown()


@contextlib.contextmanager
def generation_pool(options: EngineOptions, timeout_s: float = 30.0):
    """A `GenerationPool` whose actors are gone, and whose names are free for the next one, when the block ends.

    Raises RuntimeError where Ray still holds them after `timeout_s`.
    """
    others = set(ray.util.list_named_actors())
    pool = GenerationPool(options)
    try:
        yield pool
    finally:
        for worker in pool.workers:
            ray.kill(worker)
        deadline = time.monotonic() + timeout_s
        while set(ray.util.list_named_actors()) - others:
            if time.monotonic() > deadline:
                raise RuntimeError(f"Ray still holds the stopped engines after {timeout_s:g} s")
            time.sleep(0.1)


@contextlib.contextmanager
def silent_stderr():
    """Nothing written to the process's standard error gets out, whoever writes it.

    For shutting Ray down after an interrupt: its core then writes a line for every request that was in flight, past
    Python's logging.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
