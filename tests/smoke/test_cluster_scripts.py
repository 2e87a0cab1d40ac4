"""Every script of examples/cluster, started as a user starts it: with SMOKE=1 on the CPU stack, and its dry run."""

import json
import math
import re
import shlex
from pathlib import Path

import pytest
from cluster_scripts import FOLDER, SCRIPTS, TRAINING, run
from documents import ROOT, table_rows
from ppo_runs import logged_steps
from servers import held_port

from examples.cluster.tiny import write_data

OTHERS = ("annotate_math.sh", "serve_prm_7b.sh", "serve_prm_72b.sh", "train_prm.sh")
PPO = [name for name in SCRIPTS if name not in OTHERS and name != TRAINING]
SHOWS = {
    "vineppo.sh": "vine/branch_tokens",
    "prime.sh": "online_prm/loss",
    "length_control.sh": "length_multiplier",
}
"""What a run without a PRM logs of its own."""


OF_THE_MACHINE = ("EADDRINUSE", "node timed out during startup")
"""The host lost the port that it had picked; Ray, which gives a node 30 seconds, was too slow."""
TRIES = 5


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The folder of the models and the data, which the first script writes."""
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture
def smoke(tiny, tmp_path):
    """Runs a script to its end; its output. What it writes is in `tmp_path`/out."""

    def start(name: str, **variables: object) -> str:
        for _ in range(TRIES):
            done = run(name, SMOKE=1, SMOKE_FILES=tiny, OUT=tmp_path / "out", **variables)
            if not done.returncode or not any(fault in done.stdout + done.stderr for fault in OF_THE_MACHINE):
                break
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    return start


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> dict[str, Path]:
    """Questions and labels for a dry run, which reads them; the models are those that the scripts name."""
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return {"DATA": folder / "questions.jsonl", "LABELS": folder / "labels.jsonl"}


@pytest.mark.parametrize("name", PPO)
def test_ppo(smoke, tmp_path, name):
    # Two nodes on one machine read the same log, and each may pass its lines on.
    update, *again = logged_steps(smoke(name))
    assert all(line == update for line in again)
    assert (tmp_path / "out" / "policy" / "config.json").exists()
    assert math.isfinite(update["policy_loss"]) and update[SHOWS.get(name, "process/step_score")] > 0


def test_labels(smoke, tmp_path):
    smoke("annotate_math.sh")
    rows = [json.loads(line) for line in (tmp_path / "out" / "labels.jsonl").read_text().splitlines()]
    assert rows and all(len(row["steps"]) == len(row["mc_values"]) for row in rows)


def test_a_prm(smoke, tmp_path):
    summary = json.loads([line for line in smoke("train_prm.sh").splitlines() if line.startswith("{")][-1])
    assert summary["updates"] == 2
    config = json.loads((tmp_path / "out" / "prm" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForProcessRewardModel"]


@pytest.mark.parametrize("name", ["serve_prm_7b.sh", "serve_prm_72b.sh"])
def test_a_server(smoke, name):
    with held_port() as port:
        answers = [line for line in smoke(name, PORT=port).splitlines() if '"step_rewards"' in line]
    (solution,) = json.loads(answers[-1])["data"]
    assert len(solution["step_rewards"]) == 2 and all(0 < score < 1 for score in solution["step_rewards"])


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_dry_run_fits(data, name):
    done = run(name, "--dry-run", **data)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "role" in done.stdout and "GPUs" in done.stdout


@pytest.mark.parametrize(
    ("name", "variables", "message"),
    [
        ("ppo_separate.sh", {"GPUS": 6}, "the run needs 8 GPUs: actor + ref 4"),
        ("ppo_hybrid.sh", {"GPU_GB": 24}, "GiB"),
        ("serve_prm_72b.sh", {"GPUS": 2}, "the run needs 4 GPUs: prm 4 (--tensor-parallel-size)"),
        ("serve_prm_72b.sh", {"GPU_GB": 24}, "33.9 GiB of weights do not fit --gpu-memory-utilization 0.92 of 24 GiB"),
    ],
)
def test_a_dry_run_refuses_what_does_not_fit(data, name, variables, message):
    done = run(name, "--dry-run", **data, **variables)
    assert done.returncode == 2 and message in done.stderr.splitlines()[-1]


def sizes() -> dict[str, tuple[str, str]]:
    """Command -> GPUs and memory of the fullest, as the page's table has them."""
    rows = (
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in table_rows((ROOT / "docs" / "clusters.md").read_text())
    )
    return {row[1].strip("`"): (row[2], row[3]) for row in rows if "--dry-run" in row[1]}


@pytest.mark.parametrize("command", sizes())
def test_the_table_of_sizes_is_what_the_dry_runs_say(data, command):
    *variables, script, _ = shlex.split(command)
    name = str((ROOT / script).relative_to(FOLDER))
    said = run(name, "--dry-run", **data, **dict(word.split("=") for word in variables)).stdout
    gpus, all_of_them = re.search(r"^all +(\d+) of (\d+)", said, re.MULTILINE).groups()
    fullest = re.search(r"^a GPU of [^:]+: (\S+ of \S+) GiB", said, re.MULTILINE)[1]
    assert (gpus, fullest) == sizes()[command] and gpus == all_of_them
