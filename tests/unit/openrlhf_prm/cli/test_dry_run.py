"""`--dry_run` of every command that takes GPUs: exit code 0 or 2, nothing started, nothing written."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
POLICY = str(ROOT / "examples" / "quickstart" / "policy")
GPUS = ("--dry_run", "--dry_run.gpus", "2x80")


@pytest.fixture
def flags(tmp_path) -> dict[str, list[str]]:
    (tmp_path / "questions.jsonl").write_text('{"question": "Q: 1+1=?\\n", "label": "2"}\n')
    solutions = ({"id": f"p{label}", "problem": "1 + 1 = ?", "steps": ["2"], "label": label} for label in (-1, 0))
    (tmp_path / "benchmark.json").write_text(json.dumps(list(solutions)))
    common = ["--actor.model_name_or_path", POLICY, "--data.input", str(tmp_path / "questions.jsonl")]
    prm = ["--prm.model_name_or_path", POLICY, "--prm.family", "placeholder"]
    output = ["--data.output", str(tmp_path / "out.jsonl")]
    return {
        "annotate": [*common, *output],
        "evaluate": [*common, *prm, "--rollout.max_new_tokens", "32"],
        "rejection_sample": [*common, *output, *prm, "--rollout.max_new_tokens", "32"],
        "evaluate --benchmark": [
            *("--benchmark", "processbench", "--data.input", str(tmp_path / "benchmark.json")),
            *(*prm, "--prm.tensor_parallel_size", "2"),
            *("--eval.output", str(tmp_path / "out.json"), "--eval.threshold", "0.5"),
        ],
        "train_prm": [
            *("--model.model_name_or_path", POLICY, "--data.dataset", "labels.jsonl"),
            *("--ckpt.output_dir", str(tmp_path / "out.jsonl")),
        ],
    }


TOO_MANY = {
    "annotate": ["--vllm.num_engines", "3"],
    "evaluate": ["--vllm.num_engines", "2"],
    "rejection_sample": ["--prm.gpus_per_engine", "0.6", "--vllm.gpus_per_engine", "0.6", "--prm.num_engines", "2"],
    "evaluate --benchmark": ["--prm.tensor_parallel_size", "3"],
    "train_prm": ["--ds.lora.rank", "-1"],
}


def module_of(command: str):
    return importlib.import_module(f"openrlhf_prm.cli.{command.split()[0]}")


@pytest.mark.parametrize("command", TOO_MANY)
def test_a_dry_run_shows_what_is_taken_and_starts_nothing(command, flags, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")  # so that it is taken back, whatever the command sets
    monkeypatch.delenv("WORLD_SIZE")
    module = module_of(command)
    before = set(tmp_path.iterdir())
    assert module.main([*flags[command], *GPUS]) == 0
    out = capsys.readouterr().out
    assert "of 80 GiB" in out and "2 of 2" in out if command != "annotate" else "1 of 2" in out
    assert set(tmp_path.iterdir()) == before
    with pytest.raises(SystemExit) as ended:
        module.main([*flags[command], *GPUS, *TOO_MANY[command]])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert ("--ds.lora.rank" if command == "train_prm" else "the run needs") in error
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", TOO_MANY)
def test_gpus_that_nothing_compares_with_are_refused(command, flags, capsys):
    module = module_of(command)
    for wrong, said in (
        (GPUS[1:], "--dry_run.gpus needs --dry_run"),
        ([*GPUS[:2], "8"], "must be GPUSxGIB as in 8x80"),
    ):
        with pytest.raises(SystemExit) as ended:
            module.main([*flags[command], *wrong])
        assert ended.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("command", TOO_MANY)
def test_without_gpus_to_compare_with_it_is_this_machine(command, flags, capsys, monkeypatch):
    """On a CPU its slots, which the run would find too, whatever was set before."""
    for name in ("WORLD_SIZE", "RAY_OVERRIDE_RESOURCES", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)
    assert module_of(command).main([*flags[command], "--dry_run"]) == 0
    assert " of 8  1 node with 8" in capsys.readouterr().out


LARGER = {
    **{"hidden_size": 4096, "head_dim": 128, "intermediate_size": 40_000, "num_hidden_layers": 6},
    **{"num_attention_heads": 32, "num_key_value_heads": 32},
}
"""3.4 billion parameters, 6.2 GiB in 16 bits."""


def save_larger(path: Path, **changed) -> str:
    shutil.copytree(POLICY, path)
    config = json.loads((path / "config.json").read_text()) | LARGER | changed
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


@pytest.mark.parametrize("command", ["evaluate", "rejection_sample", "evaluate --benchmark"])
def test_a_prm_of_two_models_counts_as_two(command, flags, tmp_path, capsys):
    reference = save_larger(tmp_path / "reference")
    pair = save_larger(tmp_path / "pair", prm={"family": "implicit", "reference": reference})
    given = [*flags[command], "--prm.tensor_parallel_size", "1", "--dry_run"]

    def run(prm: str, family: str, gpus: str) -> str:
        named = ["--prm.model_name_or_path", prm, "--prm.family", family, "--dry_run.gpus", gpus]
        assert module_of(command).main([*given, *named]) == 0
        return capsys.readouterr().out

    assert "prm: weights 6.3, cache 4.6" in run(reference, "placeholder", "2x12")
    assert "prm: weights 12.5, cache 2.0" in run(pair, "implicit", "2x16")
    with pytest.raises(SystemExit) as ended:
        run(pair, "implicit", "2x12")
    said = "an engine may take 5.4 GiB of a GPU (0.45 of 12, for each of 2 models), less than its model's 6.2"
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_every_policy_of_an_evaluation_is_looked_at(flags, tmp_path, capsys):
    """The second is too large for its share."""
    other = save_larger(tmp_path / "other", num_hidden_layers=16)
    both = flags["evaluate"][:2] + [other, *flags["evaluate"][2:]]
    with pytest.raises(SystemExit) as ended:
        module_of("evaluate").main([*both, "--dry_run", "--dry_run.gpus", "2x12"])
    said = capsys.readouterr()
    assert ended.value.code == 2 and "--vllm.gpus_per_engine: an engine may take 10.8 GiB" in said.err
    assert said.out.count("role") == 2


def test_ppo_ends_by_exit_code(tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"input": "Q: 1+1=?\n", "label": "2"}) + "\n")
    given = [
        *("--actor.model_name_or_path", POLICY, "--data.prompt_dataset", str(questions), "--data.label_key", "label"),
        *("--reward.remote_url", "math", "--vllm.num_engines", "1", "--algo.advantage.estimator", "reinforce"),
        *("--actor.num_gpus_per_node", "1", "--ref.num_gpus_per_node", "1", "--data.max_len", "64"),
    ]

    def run(spec: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "openrlhf_prm.cli.train_ppo_ray", *given, "--dry_run", "--dry_run.gpus", spec]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    fits = run("3x80")
    assert fits.returncode == 0 and "3 of 3" in fits.stdout and "a GPU of actor" in fits.stdout, fits.stderr
    short = run("2x80")
    assert short.returncode == 2 and short.stdout == ""
    last = short.stderr.strip().splitlines()[-1]
    assert "error: the run needs 3 GPUs: vllm 1" in last and last.endswith("These fit: --train.colocate_actor_ref")
    assert "Started a local Ray" not in fits.stderr + short.stderr
