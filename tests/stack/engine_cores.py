"""vLLM's engine cores below a process: the processes that run its models."""

import time

import psutil

LIMIT_S = 300.0


def engine_cores(pid: int, count: int) -> list[psutil.Process]:
    """The engine cores below process `pid`, the oldest first, as soon as there are `count` of them.

    The command line of a process can read as empty for a moment, so one look is not enough on a busy machine. A core
    without a title of its own shows how multiprocessing started it.
    """
    deadline = time.monotonic() + LIMIT_S
    while True:
        below = psutil.Process(pid).children()
        cores = [process for process in below if _is_core(process)]
        if len(cores) == count:
            return sorted(cores, key=lambda process: process.create_time())
        assert time.monotonic() < deadline, below
        time.sleep(0.1)


def _is_core(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "EngineCore" in command or "spawn_main" in command
