"""A PRM trained, trained on and saved with real DeepSpeed on CPU, in the data type and at the rate of a user."""

import json
import random
from pathlib import Path

import pytest
import torch
import warm
from untrained_policy import save_untrained_policy

from openrlhf_prm.tasks.arithmetic import check_steps, demonstration, questions

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    """An untrained policy: it writes noise, which is all that these tests need."""
    return str(save_untrained_policy(tmp_path_factory.mktemp("policy")))


def write_jsonl(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def train(*flags: object) -> dict:
    """The summary of a run."""
    done = warm.run("openrlhf_prm.cli.train_prm", *flags)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def exact_rows(split: str, count: int) -> list[dict]:
    rng = random.Random(split)
    rows = []
    for question, _ in questions(split, count, seed=0):
        steps = demonstration(question, rng).splitlines()
        rows.append({"question": question, "steps": steps, "hard_labels": check_steps(question, steps)})
    return rows


def test_a_prm_is_trained_resumed_and_saved_whole(policy, tmp_path):
    output, checkpoints = tmp_path / "prm", tmp_path / "checkpoints"
    rows = write_jsonl(tmp_path / "train.jsonl", [*exact_rows("train", 128), {"question": "Q", "steps": []}])
    held_out = write_jsonl(tmp_path / "tune.jsonl", exact_rows("tune", 32))
    flags = ["--model.model_name_or_path", policy, "--data.dataset", rows, "--eval.dataset", held_out]
    flags += ["--train.batch_size", "16", "--train.micro_batch_size", "8"]
    flags += ["--adam.lr", "2e-3", "--lr_scheduler", "constant"]
    flags += ["--ckpt.path", str(checkpoints), "--ckpt.save_steps", "8", "--ckpt.load_enable"]

    first = train(*flags, "--ckpt.output_dir", tmp_path / "first", "--train.max_epochs", 1)
    assert first["updates"] == 8 and first["bad_rows"] == 1
    whole = train(*flags, "--ckpt.output_dir", output, "--train.max_epochs", 3)
    assert whole["updates"] == 16, "one of three epochs was done before"
    assert whole["last_loss"] < 0.9 * first["first_loss"]
    assert whole["eval"]["steps"] == sum(len(row["steps"]) for row in exact_rows("tune", 32))
    assert whole["eval"]["loss"] < first["eval"]["loss"]

    from transformers import AutoModelForCausalLM

    from vllm_prm.families import load_family

    config = json.loads((output / "config.json").read_text())
    assert config["prm"] == {
        "family": "placeholder",
        "placeholder_token": "<step>",
        "reward_tokens": ["+", "-"],
        "step_separator": "\n",
    }
    assert not (tmp_path / "prm.partial").exists()
    # The saved checkpoint, read as the serving side reads it, agrees with the evaluation in training.
    family = load_family(str(output))
    model = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32)
    agree = steps = 0
    for row in exact_rows("tune", 32):
        rendered = family.render(row["question"], row["steps"])
        with torch.no_grad():
            logits = model(torch.tensor([rendered.token_ids])).logits[0, rendered.step_positions]
        scores = family.decode(logits[:, list(family.reward_token_ids)].tolist())
        agree += sum((score >= 0.5) == label for score, label in zip(scores, row["hard_labels"], strict=True))
        steps += len(scores)
    assert agree / steps == pytest.approx(whole["eval"]["step_accuracy"], abs=0.03)  # bf16 in training


def test_the_loss_is_cross_entropy_on_the_log_odds():
    from openrlhf_prm.prm_training.trainer import step_losses

    losses = step_losses(torch.tensor([2.0, -2.0, 0.0, 2.0]), torch.tensor([1.0, 1.0, 0.25, 0.25]))
    # log(1 + e^-2), log(1 + e^2), log 2, a quarter of the first and three of the second
    assert losses.tolist() == pytest.approx([0.126928, 2.126928, 0.693147, 1.626928], abs=1e-5)
