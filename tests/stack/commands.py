"""The project's commands as a user runs them, in a process of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

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
