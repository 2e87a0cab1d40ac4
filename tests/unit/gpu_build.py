"""A CPU build of PyTorch that answers as a CUDA build on a machine with eight GPUs, and notes who touches CUDA.

Run as a program it reads jobs from standard input, one JSON a line (`argv` as of `python -m`, `environment`), runs each
in a fork until an engine or Ray would start, and answers with one JSON a line: what would have started, and the stack
of every call that touched CUDA before.
"""

import json
import os
import runpy
import sys
import traceback
from typing import NoReturn

TOUCHES: list[str] = []


class EngineStart(BaseException):
    """What would start next. No `Exception`, so that no command takes it for an error."""


def touched(*_: object, **__: object) -> int:
    """In place of what initialises CUDA."""
    TOUCHES.append("".join(traceback.format_stack()[:-1]))
    return 8


def stops(name: str):
    """In place of a function that starts an engine."""

    def start(*_: object, **__: object) -> NoReturn:
        raise EngineStart(name)

    return start


def become_gpu_build() -> None:
    """PyTorch's own rules, on eight GPUs that NVML sees."""
    import torch

    torch.cuda._is_compiled = lambda: True
    torch.cuda._device_count_nvml = lambda: 8
    torch._C._cuda_getDeviceCount = touched  # through which torch.cuda.is_available() poisons forks
    torch.cuda._lazy_init = touched
    torch._C._cuda_getCurrentRawStream = lambda device: 0  # torch.compile imports it


def stop_at_engines() -> None:
    """No command gets further than the start of Ray, of the server's program or of vLLM's engine."""
    import ray

    from openrlhf_prm.cluster import accelerator, nodes
    from vllm_prm.engines import OfflineEngine

    accelerator._cpu_build = lambda: False
    nodes._local_gpus = lambda: [80.0] * 8
    ray.init = stops("Ray")
    os.execve = stops("server")
    OfflineEngine.start = stops("engine")


def work(argv: list[str], environment: dict[str, str], answers: int) -> NoReturn:
    """Runs one job in this fork, to its end."""
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    outcome: object
    try:
        if argv[0] != "-c":
            stop_at_engines()
            runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
        else:
            exec(argv[1], {})
        outcome = "ended"
    except EngineStart as start:
        outcome = str(start)
    except BaseException:
        outcome = traceback.format_exc()
    os.write(answers, (json.dumps({"reached": outcome, "touches": TOUCHES}) + "\n").encode())
    os._exit(0)


def main() -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # what commands print is no answer
    sys.path[0] = os.getcwd()  # as `python -m` has it
    become_gpu_build()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            work(**json.loads(line), answers=answers)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
