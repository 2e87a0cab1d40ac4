"""The scripts for clusters: what they show, refuse and agree on. That their flags are there is held by
tests/unit/test_documents.py, that they run by tests/smoke.
"""

import json
import re
import subprocess

import pytest
import yaml
from cluster_scripts import FOLDER, SCRIPTS, TRAINING, printed, run
from documents import ROOT, table_rows

from examples.cluster.ppo_4_nodes import wait_for_nodes
from examples.cluster.shapes import SHAPES
from examples.cluster.tiny import ALWAYS, IF_GIVEN, NEVER, QUESTIONS, smaller, write_data

FILES = sorted(path for path in FOLDER.rglob("*") if path.suffix in (".sh", ".sbatch", ".py", ".yaml", ".md"))


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.suffix in (".sh", ".sbatch")], ids=lambda path: path.name
)
def test_every_script_is_bash(path):
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_page_has_a_row_for_every_script():
    rows = [row for row in table_rows((FOLDER / "README.md").read_text()) if row.count("|") > 4]
    missing = [name for name in SCRIPTS if not any(f"({name})" in row for row in rows)]
    assert missing == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_knows_a_machine_or_a_key(path):
    text = path.read_text()
    assert re.findall(r"/(?:home|root|work|mnt|Users)/", text) == []
    assert re.findall(r"--(?:api-key|logger\.wandb\.key|token)[ =](?!from-the-environment)", text) == []
    assert re.findall(r"\b(?:hf|sk|wandb)_[A-Za-z0-9]{8,}", text) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_unknown_argument_is_one_line(name):
    done = run(name, "--dry_run")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "error: --dry_run: the only arguments are" in done.stderr


def test_variables_win_over_defaults_and_paths_become_absolute(tmp_path):
    (tmp_path / "questions.jsonl").touch()
    words = printed("ppo_hybrid.sh", MODEL="owner/model", DATA=tmp_path / "questions.jsonl", GPUS=4, TP=2, OUT="a/b")
    value = dict(zip(words, words[1:], strict=False))
    assert value["--actor.model_name_or_path"] == "owner/model"
    assert value["--data.prompt_dataset"] == str(tmp_path / "questions.jsonl")
    assert (value["--actor.num_gpus_per_node"], value["--vllm.num_engines"]) == ("4", "2")
    assert value["--ckpt.output_dir"] == str(ROOT / "a/b/policy")


def test_a_key_stays_in_the_environment():
    words = printed("ppo_separate.sh", WANDB_API_KEY="secret-of-mine", HF_TOKEN="another-secret")
    assert "--logger.wandb.key" in words and not any("secret" in word for word in words)
    assert "--logger.wandb.key" not in printed("ppo_separate.sh", WANDB_API_KEY="")


def test_a_job_takes_the_settings_along_and_no_key():
    words = printed("ppo_4_nodes/submit.sh", MODEL="owner/model", HF_TOKEN="secret", RAY_ADDRESS="http://head:8265")
    assert words[:5] == ["ray", "job", "submit", "--address", "http://head:8265"]
    assert {"MODEL=owner/model", "NODES=4", "GPUS=8"} < set(words) and "secret" not in " ".join(words)
    assert words[-2:] == ["bash", str(SCRIPTS[TRAINING])]


def gpus(words: list[str]) -> int:
    """GPUs of policy and engines, the reference being with the policy."""
    value = dict(zip(words, words[1:], strict=False))
    policy = int(value["--actor.num_nodes"]) * int(value["--actor.num_gpus_per_node"])
    return policy + int(value["--vllm.num_engines"]) + int(value["--prm.num_engines"])


def test_the_launchers_ask_for_what_the_run_takes():
    wanted = gpus(printed(TRAINING))
    job = yaml.safe_load((FOLDER / "ppo_4_nodes" / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [(1, cluster["headGroupSpec"]), *((group["replicas"], group) for group in cluster["workerGroupSpecs"])]
    limits = [
        (pods, group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
        for pods, group in groups
    ]
    assert sum(pods * int(count) for pods, count in limits) == wanted == 32
    script = (FOLDER / "ppo_4_nodes" / "slurm.sbatch").read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", script, re.MULTILINE))
    assert int(asked["nodes"]) * int(asked["gpus-per-node"]) == wanted


def test_the_ray_job_starts_the_script_in_the_image_with_the_version_that_is_pinned():
    job = yaml.safe_load((FOLDER / "ppo_4_nodes" / "rayjob.yaml").read_text())
    program, path = job["spec"]["entrypoint"].split()
    image = (ROOT / "Dockerfile").read_text()
    folder = re.search(r"^WORKDIR (.+)$", image, re.MULTILINE)[1]
    assert program == "bash" and ROOT / path.removeprefix(f"{folder}/") == SCRIPTS[TRAINING]
    assert re.search(r"apt-get install[^&]* wget ", image), "KubeRay's probes call it"
    assert f"ray=={job['spec']['rayClusterSpec']['rayVersion']}" in (ROOT / "requirements/cpu.lock").read_text()


def test_a_dry_run_knows_the_shape_of_every_model_that_a_script_names():
    words = {word for name in SCRIPTS for word in printed(name) if re.fullmatch(r"Qwen/\S+", word)}
    assert len(words) == 4 and words < set(SHAPES)


def test_a_smoke_run_has_the_flags_of_the_script_and_smaller_sizes_behind():
    words = ["openrlhf-prm", "train-ppo", "--vine.k", "9", "--ds.enable_sleep", "--actor.num_nodes", "2"]
    small = smaller(words)
    assert small[:4] == words[:4] and not set(NEVER) & set(small)
    value = dict(zip(small, small[1:], strict=False))  # the last one counts, as with argparse
    assert (value["--vine.k"], value["--actor.num_nodes"]) == (IF_GIVEN["--vine.k"], "1")
    assert "--vine.k" not in smaller(["openrlhf-prm", "train-ppo"]) and small[-2:] == ALWAYS["train-ppo"][-2:]
    with pytest.raises(ValueError, match="no smoke flags for openrlhf-prm report"):
        smaller(["openrlhf-prm", "report"])


def test_what_every_smoke_flag_replaces_is_in_a_script():
    words = {word for name in SCRIPTS for word in printed(name)}
    assert [flag for flag in (*IF_GIVEN, *NEVER) if flag not in words] == []


def test_tiny_data_is_what_the_commands_read(tmp_path):
    write_data(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert len(rows) == QUESTIONS and all(set(row) == {"problem", "answer"} for row in rows)
    labels = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert {mark for row in labels for mark in row["hard_labels"]} == {True, False}
    assert all(len(row["steps"]) == len(row["hard_labels"]) for row in labels)


def test_nodes_that_do_not_come_end_the_wait(monkeypatch, capsys):
    tries = iter([ConnectionError, None, None])

    def init(**options):
        if (fault := next(tries)) is not None:
            raise fault

    monkeypatch.setattr(wait_for_nodes.ray, "init", init)
    monkeypatch.setattr(wait_for_nodes.ray, "nodes", lambda: [{"Alive": True}, {"Alive": False}])
    monkeypatch.setattr(wait_for_nodes.time, "sleep", lambda seconds: None)
    assert wait_for_nodes.main(1) == 0  # the first time no cluster answers
    monkeypatch.setattr(wait_for_nodes, "PATIENCE_S", -1)
    assert wait_for_nodes.main(2) == 1
    assert "1 of 2 nodes have joined" in capsys.readouterr().err
