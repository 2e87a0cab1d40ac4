"""`train_prm` as a user runs it, with every head: real DeepSpeed trains a tiny model in a subprocess, real vLLM scores
the result as it is, and the scores are those of the trainer's own last forward."""

import json
import random
from pathlib import Path

import pytest
import torch
import transformers
import warm
from commands import run
from killed_command import kill_midway
from safetensors.torch import load_file
from tiny_chat_lm import save_tiny_chat_lm

from openrlhf_prm.prm_training.heads import PRM_HEADS
from vllm_prm.families import detect_family
from vllm_prm.scorer import StepScorer

pytestmark = pytest.mark.stack

ENGINE_ARGS = {
    "dtype": "float32",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 32 << 20,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 512,
}
SIZES = ["--train.batch_size", "8", "--train.micro_batch_size", "4", "--data.max_len", "512"]
FP32 = ["--ds.param_dtype", "fp32", "--adam.lr", "3e-3", "--lr_scheduler", "constant"]


def rows(count: int, seed: int) -> list[dict]:
    """Sums of two digits; a step is right where the sum is. Every key that some head reads is there. In solutions of
    four steps the third has no label."""
    rng = random.Random(seed)
    lines = []
    for _ in range(count):
        steps, labels = [], []
        for _ in range(rng.randint(1, 4)):
            a, b, right = rng.randint(0, 9), rng.randint(0, 9), rng.random() < 0.6
            steps.append(f"{a} + {b} = {a + b + (not right) * 3}.")
            labels.append(int(right))
        right = all(labels)
        labels = [*labels[:2], None, labels[3]] if len(labels) == 4 else labels
        lines.append({"question": f"Sums, {len(steps)} of them.", "steps": steps, "hard_labels": labels})
        lines[-1]["correct"] = right
    return lines


def write(path: Path, lines: list[dict]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Models of two kinds, training rows and evaluation rows."""
    path = tmp_path_factory.mktemp("heads")
    save_tiny_chat_lm(path / "qwen2", "qwen2", seed=1)
    save_tiny_chat_lm(path / "llama", "llama", tied=True, seed=2)
    write(path / "train.jsonl", rows(32, seed=0))
    write(path / "eval.jsonl", rows(12, seed=1))
    return path


def command(folder: Path, model: str, output: Path, *flags: str) -> list[str]:
    """`train_prm` and its flags; the evaluated rows are in `<output>.scores.jsonl`."""
    argv = ["--model.model_name_or_path", str(folder / model), "--data.dataset", str(folder / "train.jsonl")]
    argv += ["--eval.dataset", str(folder / "eval.jsonl"), "--eval.output", f"{output}.scores.jsonl"]
    argv += ["--ckpt.output_dir", str(output), "--ckpt.path", f"{output}.checkpoints", *SIZES, *flags]
    return ["openrlhf_prm.cli.train_prm", *argv]


def train(folder: Path, model: str, output: Path, *flags: str, launcher: tuple[str, ...] = ()) -> dict:
    """The summary of a run."""
    start = run if launcher else warm.run
    done = start(*launcher, *command(folder, model, output, *flags))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])


def evaluated(output: Path) -> list[dict]:
    return [json.loads(line) for line in Path(f"{output}.scores.jsonl").read_text().splitlines()]


def served_difference(output: Path, spread: float = 0.01) -> float:
    """Largest difference of vLLM's scores and the trainer's, which are to differ by `spread` at least."""
    expected = evaluated(output)
    scorer = StepScorer.from_pretrained(str(output), **ENGINE_ARGS)
    try:
        scores = scorer.score([(row["question"], row["steps"]) for row in expected])
    finally:
        scorer.shutdown()
    assert [len(got) for got in scores] == [len(row["steps"]) for row in expected]
    pairs = [pair for got, row in zip(scores, expected, strict=True) for pair in zip(got, row["scores"], strict=True)]
    pairs = [(served, trained) for served, trained in pairs if trained is not None]  # of the trainer only with a label
    trained = [score for _, score in pairs]
    assert max(trained) - min(trained) > spread, "a head that scores everything alike would prove nothing"
    return max(abs(a - b) for a, b in pairs)


CASES = {
    "placeholder": ("llama", []),
    "token_classification": ("llama", ["--prm.step_separator", "\n\n"]),
    "qwen_prm": ("qwen2", []),
    "value_head": ("qwen2", ["--data.apply_chat_template"]),
    "implicit": ("qwen2", ["--prm.beta", "0.2"]),
}


@pytest.mark.parametrize("head", CASES)
def test_what_was_trained_is_served_as_it_is(folder, tmp_path, head):
    assert set(CASES) == set(PRM_HEADS)
    model, flags = CASES[head]
    output = tmp_path / "prm"
    summary = train(folder, model, output, "--prm.head", head, "--train.max_epochs", "3", *FP32, *flags)
    assert summary["head"] == head and summary["updates"] == 12 and summary["bad_rows"] == 0
    assert abs(summary["last_loss"] - summary["first_loss"]) > 0.01, "the weights are to move away from their start"
    if head == "implicit":
        assert summary["first_loss"] == pytest.approx(0.693147, abs=1e-4)  # log 2: the model is its own reference
    assert detect_family(str(output)).family == head
    difference = served_difference(output)
    print(f"parity {head}: {difference:.1e}, loss {summary['first_loss']:.3f} -> {summary['last_loss']:.3f}")
    assert difference < 1e-4

    loaders = {"token_classification": "TokenClassification", "value_head": "SequenceClassification"}
    if head in loaders:
        auto = getattr(transformers, f"AutoModelFor{loaders[head]}")
        _, info = auto.from_pretrained(output, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]


def weights(output: Path) -> dict:
    return load_file(output / "model.safetensors")


def test_a_killed_run_ends_where_it_would_have_ended(folder, tmp_path):
    """With dropout, an evaluation and a best checkpoint before and after the kill."""
    flags = ["--prm.head", "token_classification", "--train.max_epochs", "12", "--eval.steps", "5", "--ckpt.save_steps"]
    flags += ["4", "--ckpt.best_metric_key", "auc", "--ckpt.load_enable", "--ds.lora.rank", "4", *FP32]
    flags += ["--ds.lora.dropout", "0.2", "--lr_scheduler", "cosine_with_min_lr"]
    whole = train(folder, "qwen2", tmp_path / "whole", *flags)
    assert whole["updates"] == whole["updates_in_all"] == 48

    killed = tmp_path / "killed"
    stop = Path(f"{killed}.checkpoints") / "global_step12"
    kill_midway(stop, 0, tmp_path / "log", *command(folder, "qwen2", killed, *flags))
    assert stop.exists() and not killed.exists()
    again = train(folder, "qwen2", killed, *flags)
    assert 0 < again["updates"] < 48 and again["updates_in_all"] == 48, "it was to be killed in the middle"
    for key in ("first_loss", "last_loss", "eval", "best"):
        assert again[key] == whole[key], key
    assert json.loads((killed / "prm_training.json").read_text()) == whole["best"]
    one, other = weights(tmp_path / "whole"), weights(killed)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert evaluated(killed) == evaluated(tmp_path / "whole")
    assert not list(tmp_path.glob("*.best")) and not list(tmp_path.glob("*.partial"))


def test_the_best_checkpoint_is_served_merged(folder, tmp_path):
    """LoRA, packing and gradient checkpointing at once; the weights kept are not the last ones."""
    flags = ["--prm.head", "value_head", "--ds.lora.rank", "8", "--ds.packing_samples", "--eval.steps", "1", *FP32]
    flags += ["--model.gradient_checkpointing_enable", "--adam.lr", "0.05", "--train.max_epochs", "3"]
    output = tmp_path / "prm"
    summary = train(folder, "llama", output, *flags, "--ckpt.best_metric_key", "loss")
    assert summary["best"]["loss"] < summary["eval"]["loss"], "the learning rate was to be too high for the last update"
    assert summary["best"]["update"] < 12
    difference = served_difference(output, spread=0.003)
    print(f"parity LoRA: {difference:.1e}, best {summary['best']['loss']:.3f}, last {summary['eval']['loss']:.3f}")
    assert difference < 1e-5


def test_two_processes_train_what_one_does(folder, tmp_path):
    flags = ["--prm.head", "qwen_prm", "--train.max_epochs", "2", "--ckpt.best_metric_key", "loss", *FP32]
    alone = train(folder, "qwen2", tmp_path / "alone", *flags)
    torchrun = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")
    both = train(folder, "qwen2", tmp_path / "both", *flags, launcher=torchrun)
    assert both["updates"] == alone["updates"] == 8
    assert both["last_loss"] == pytest.approx(alone["last_loss"], abs=1e-4)
    assert both["eval"] == pytest.approx(alone["eval"], abs=1e-3)
    assert [row["steps"] for row in evaluated(tmp_path / "both")] == [
        row["steps"] for row in evaluated(tmp_path / "alone")
    ]


def test_other_trainers_rows_and_a_strict_run(folder, tmp_path):
    """OpenRLHF <= 0.9.5's flags and data with soft labels; a bad row and a cut one are named, or end the run."""
    lines = []
    for row in rows(16, seed=3):
        text = "\n".join([row["question"], *(f"{step} <tag>" for step in row["steps"])])
        lines.append({"input": text, "label": [0.9 if label else 0.2 for label in row["hard_labels"]]})
    lines[4]["label"].append(1.0)
    lines[6]["input"] = "x" * 600 + lines[6]["input"]
    data = write(tmp_path / "old.jsonl", lines)
    old = ["--pretrain", str(folder / "llama"), "--dataset", data, "--placeholder_token", "<tag>", "--bf16"]
    old += ["--reward_tokens", "+", "-", "--input_key", "input", "--label_key", "label", "--train_batch_size", "4"]
    old += ["--micro_train_batch_size", "2", "--max_len", "512", "--learning_rate", "1e-3", "--max_epochs", "1"]
    old += ["--save_path", str(tmp_path / "prm"), "--prm.add_placeholder_token", "--data.report"]
    old.append(str(tmp_path / "report.json"))

    strict = warm.run("openrlhf_prm.cli.train_prm", *old, "--data.strict")
    assert strict.returncode == 2 and not (tmp_path / "prm").exists()
    assert f"{data} line 5: " in strict.stderr.splitlines()[-1]
    done = warm.run("openrlhf_prm.cli.train_prm", *old)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["solutions"], summary["bad_rows"], summary["cut_rows"]) == (14, 1, 1)
    report = json.loads((tmp_path / "report.json").read_text())["--data.dataset"]
    assert report["bad_rows"][0].startswith(f"{data} line 5: ") and report["cut_rows"][0].startswith(f"{data} line 7: ")
    assert "line 5" in done.stdout and "line 7" in done.stdout
    assert detect_family(str(tmp_path / "prm")).family == "placeholder"
