"""The scripts of examples/cluster, started as a user starts them."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from documents import ROOT

FOLDER = ROOT / "examples" / "cluster"
SCRIPTS = {
    str(path.relative_to(FOLDER)): path
    for path in sorted([*FOLDER.rglob("*.sh"), *FOLDER.rglob("*.sbatch")])
    if os.access(path, os.X_OK)
}
"""Name -> file of those that are started; the others are sourced."""
MODES = ("--print", "--dry-run")
"""The arguments of every script."""
VARIABLES = "MODEL PRM BASE DATA LABELS OUT NODES GPUS TP GPU_GB PORT SMOKE WANDB_API_KEY RAY_ADDRESS".split()
"""What scripts read, and a test says itself."""
TRAINING = "ppo_4_nodes/train.sh"
"""What the three launchers start; no script of its own on one machine."""


def run(name: str, *arguments: str, **variables: object) -> subprocess.CompletedProcess:
    """The script from the root of the repository with these variables, under this interpreter's environment."""
    kept = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    given = {key: str(value) for key, value in variables.items()}
    return subprocess.run(
        ["bash", str(SCRIPTS[name]), *arguments],
        cwd=ROOT,
        env={**kept, "PATH": path, **given},
        capture_output=True,
        text=True,
    )


def printed(name: str, **variables: object) -> list[str]:
    """The words of the script's command."""
    done = run(name, "--print", **variables)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)
