"""The project's commands as a user runs them, in a process of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from openrlhf_prm.cluster.accelerator import cpu_environment, cpu_training_flags

ROOT = Path(__file__).parents[2]


def run(module: str, *flags: object, environment: Mapping[str, str] = {}) -> subprocess.CompletedProcess:  # noqa: B006
    """`python -m MODULE FLAGS` from the root of the repository, with its output."""
    command = [sys.executable, "-m", module, *map(str, flags)]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def summary_of(module: str, *flags: object) -> dict:
    """The summary that the command prints as its last line; the test fails with the end of its log where it fails."""
    done = run(module, *flags)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


ONE_PROCESS = {
    **{"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"},
    **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"},
}
"""What torchrun tells a training of one process."""


def fine_tune(data: Path, *flags: object) -> Path:
    """The host's SFT of one process on data of ours; the folder of the trained checkpoint."""
    tuned = data.parent / "tuned"
    sizes = ["--data.max_len", "256", "--train.batch_size", "8", "--train.micro_batch_size", "8"]
    outputs = ["--ckpt.output_dir", tuned, "--ckpt.path", data.parent / "tuned.checkpoints"]
    given = (*flags, *sizes, *outputs, *cpu_training_flags())
    done = run("openrlhf.cli.train_sft", *given, environment=cpu_environment() | ONE_PROCESS)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return tuned


IN_TURN = """
import contextlib, io, json, runpy, sys

given, sys.path[0] = json.load(sys.stdin), ""
answers = []
for module, *flags in given:
    sys.argv = [module, *flags]
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(sys.stderr):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as ended:
            code = ended.code
    answers.append([code, said.getvalue(), "ray" in sys.modules and sys.modules["ray"].is_initialized()])
print(json.dumps(answers))
"""


def in_turn(commands: Sequence[Sequence[object]], environment: Mapping[str, str]) -> list[list]:
    """MODULE FLAG... of each, as `python -m` runs it, one after the other in one process: the hosts are imported once.
    The exit code of each, its standard error, and whether it had started Ray.
    """
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN],
        cwd=ROOT,
        env={"OMP_NUM_THREADS": "1", **os.environ, **environment},
        input=json.dumps([[str(part) for part in command] for command in commands]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
