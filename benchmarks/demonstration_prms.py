"""PRMs of the arithmetic task from demonstrations, which the exact checker labels; labels may be spoilt on purpose."""

import json
import os
import random
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.runs import POLICY, made_with, run_command
from openrlhf_prm.cluster.accelerator import cpu_environment, on_cpu
from openrlhf_prm.measures.steps import roc_auc
from openrlhf_prm.tasks.arithmetic import HabitMix, check_steps, demonstration, habit_of, questions
from vllm_prm.durable_file import write_atomically


@dataclass(frozen=True)
class Labels:
    """How many solutions are labelled, how they are written, and how labels are spoilt.

    noise: chance that a label is flipped. trusted: habits whose steps always get the label 1.
    """

    count: int
    mix: HabitMix
    noise: float = 0.0
    trusted: tuple[str, ...] = ()


def labelled(split: str, labels: Labels, seed: int) -> list[dict]:
    """Rows that `train_prm` reads: question, steps, hard_labels."""
    rng = random.Random(f"labels-{seed}")
    rows = []
    for question, _ in questions(split, labels.count, seed, labels.mix):
        steps = demonstration(question, rng, labels.mix).splitlines()
        verdicts = [int(right) ^ (rng.random() < labels.noise) for right in check_steps(question, steps)]
        hard = [1 if habit_of(step) in labels.trusted else v for step, v in zip(steps, verdicts, strict=True)]
        rows.append({"question": question, "steps": steps, "hard_labels": hard})
    return rows


def train(folder: Path, labels: Labels, seed: int, epochs: int, policy: Path = POLICY, lr: float = 2e-3) -> Path:
    """A PRM trained by `train_prm` on labelled demonstrations of the train split; made once for the same settings."""
    prm, data = folder / "prm", folder / "labels.jsonl"
    settings = {"labels": asdict(labels), "seed": seed, "epochs": epochs, "policy": policy, "lr": lr}
    if not made_with(prm, settings):
        write_atomically(data, "".join(json.dumps(row) + "\n" for row in labelled("train", labels, seed)))
        flags = [
            *("--model.model_name_or_path", policy, "--data.dataset", data, "--ckpt.output_dir", prm),
            *("--train.seed", seed, "--train.max_epochs", epochs, "--adam.lr", lr),
            *("--train.batch_size", 16, "--train.micro_batch_size", 16),
        ]
        run_command("openrlhf_prm.cli.train_prm", flags, folder / "train_prm.log")
    return prm


def quality(prm: Path, folder: Path, mix: HabitMix, count: int = 200) -> dict[str, float]:
    """How good the PRM's scores are on demonstrations of the tune split: accuracy of score > 0.5 over steps, AUC, and
    the mean score of wrong steps and of fillers.
    """
    rows = labelled("tune", Labels(count, mix), seed=0)
    lines = "".join(json.dumps({"question": row["question"], "steps": row["steps"]}) + "\n" for row in rows)
    command = [sys.executable, "-m", "vllm_prm.serve", "score", str(prm)]
    command += ["--engine-args", json.dumps({"enforce_eager": True})]
    done = subprocess.run(
        command,
        input=lines,
        capture_output=True,
        text=True,
        env={**(cpu_environment() if on_cpu() else {}), **os.environ},
    )
    if done.returncode:
        raise RuntimeError(f"vllm-prm score failed:\n{done.stderr[-3000:]}")
    write_atomically(folder / "scores.jsonl", done.stdout)
    scores = [score for line in done.stdout.splitlines() for score in json.loads(line)["step_rewards"]]
    truth = [label for row in rows for label in row["hard_labels"]]
    habits = [habit_of(step) for row in rows for step in row["steps"]]
    wrong = [score for score, label in zip(scores, truth, strict=True) if not label]
    fillers = [score for score, habit in zip(scores, habits, strict=True) if habit == "filler"]
    return {
        "step_accuracy": sum((score > 0.5) == label for score, label in zip(scores, truth, strict=True)) / len(truth),
        "auc": roc_auc(scores, [bool(label) for label in truth]),
        "score_of_wrong_steps": sum(wrong) / len(wrong),
        "score_of_fillers": sum(fillers) / len(fillers) if fillers else None,
    }
