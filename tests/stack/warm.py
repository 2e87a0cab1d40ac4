"""`commands.run`, in a fork of a process that has imported PyTorch, DeepSpeed and OpenRLHF, which takes most of the
seconds of a small training. For files that train often; others start the command as a user does.

Run as a program it reads jobs from standard input, one JSON a line, runs each in a fork as `python -m` does, and
answers with its exit code.
"""

import atexit
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NoReturn

from commands import ROOT


def run(module: str, *flags: object, environment: Mapping[str, str] = {}) -> subprocess.CompletedProcess:  # noqa: B006
    """`python -m MODULE FLAGS` from the root of the repository, with its output."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        argv = [module, *map(str, flags)]
        job = {"argv": argv, "environment": {**os.environ, **environment}, "outputs": list(map(str, outputs))}
        process = _process()
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        code = int(process.stdout.readline())
        return subprocess.CompletedProcess(argv, code, *(output.read_text() for output in outputs))


@cache
def _process() -> subprocess.Popen:
    command = [sys.executable, __file__]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def main() -> None:
    sys.path[0] = os.getcwd()  # as `python -m` has it
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is no answer
    from openrlhf_prm.cluster.accelerator import prepare_environment

    prepare_environment()
    import openrlhf_prm.prm_training.trainer  # noqa: F401 (and through it all the rest)

    for line in sys.stdin:
        child = os.fork()
        if not child:
            work(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def work(argv: list[str], environment: dict[str, str], outputs: list[str]) -> NoReturn:
    """Runs one job in this fork, to its end."""
    os.environ.clear()
    os.environ.update(environment)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for number, target in enumerate([nowhere, *(os.open(path, os.O_WRONLY | os.O_CREAT) for path in outputs)]):
        os.dup2(target, number)
    sys.argv = argv
    code: object = 0
    try:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    main()
