"""Annotation and PRM training as a user runs them: real Ray, vLLM and DeepSpeed on CPU, in subprocesses."""

import json
import random
from pathlib import Path

import pytest
import torch
from commands import summary_of
from killed_command import kill_midway

from examples.quickstart.make_policy import build_model, build_tokenizer
from openrlhf_prm.data.ledger import balances
from openrlhf_prm.tasks.arithmetic import check_steps, demonstration, questions

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    """An untrained policy: it writes noise, which is all that these tests need."""
    path = tmp_path_factory.mktemp("policy")
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    build_model(tokenizer).to(torch.bfloat16).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def write_jsonl(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_killed_annotation_goes_on_where_it_stopped(policy, tmp_path):
    rows = [{"question": question, "label": answer} for question, answer in questions("train", 8, seed=0)]
    output = tmp_path / "labels.jsonl"
    flags = ["--actor.model_name_or_path", policy, "--data.input", write_jsonl(tmp_path / "in.jsonl", rows)]
    flags += ["--data.output", str(output), "--rollout.max_new_tokens", "64", "--annotation.rollouts", "3"]
    flags += ["--annotation.no_stop_at_zero", "--vllm.enforce_eager"]

    kill_midway(output, 0, tmp_path / "log", "openrlhf_prm.cli.annotate", *flags, "--annotation.concurrency", "1")
    kept = output.read_bytes()
    output.write_bytes(kept + b'{"id": "torn')

    summary = summary_of("openrlhf_prm.cli.annotate", *flags)
    assert 0 < summary["resumed_questions"] < 8, "the first run was to be killed in the middle"
    assert summary["questions"] == 8 - summary["resumed_questions"]
    assert output.read_bytes().startswith(kept)
    records = [json.loads(line) for line in output.read_text().splitlines()]
    [balance] = balances(tmp_path)
    assert (balance.came, balance.out["labelled"], balance.faults) == (8, 8, [])
    assert sorted(record["question"] for record in records) == sorted(row["question"] for row in rows for _ in range(2))
    for record in records:
        assert len(record["steps"]) == len(record["mc_values"]) == len(record["hard_labels"]) == len(record["rollouts"])
        own = [rollouts - endings for rollouts, endings in zip(record["rollouts"], record["endings"], strict=True)]
        assert own[:-1] == [3] * (len(record["steps"]) - 1) and min(record["endings"][:-1], default=1) >= 1


def exact_rows(split: str, count: int) -> list[dict]:
    rng = random.Random(split)
    rows = []
    for question, _ in questions(split, count, seed=0):
        steps = demonstration(question, rng).splitlines()
        rows.append({"question": question, "steps": steps, "hard_labels": check_steps(question, steps)})
    return rows


def test_a_prm_is_trained_resumed_and_saved_whole(policy, tmp_path):
    output, checkpoints = tmp_path / "prm", tmp_path / "checkpoints"
    train = write_jsonl(tmp_path / "train.jsonl", [*exact_rows("train", 128), {"question": "Q", "steps": []}])
    held_out = write_jsonl(tmp_path / "tune.jsonl", exact_rows("tune", 32))
    flags = ["--model.model_name_or_path", policy, "--data.dataset", train, "--eval.dataset", held_out]
    flags += ["--train.batch_size", "16", "--train.micro_batch_size", "8"]
    flags += ["--adam.lr", "2e-3", "--lr_scheduler", "constant"]
    flags += ["--ckpt.path", str(checkpoints), "--ckpt.save_steps", "8", "--ckpt.load_enable"]

    train_prm = ("openrlhf_prm.cli.train_prm", *flags, "--ckpt.output_dir")
    first = summary_of(*train_prm, tmp_path / "first", "--train.max_epochs", 1)
    assert first["updates"] == 8 and first["bad_rows"] == 1
    whole = summary_of(*train_prm, output, "--train.max_epochs", 3)
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
