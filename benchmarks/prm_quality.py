"""How good a PRM is that was trained on automatic labels alone: `python -m benchmarks.prm_quality`.

For each seed the first two stages of `make rejection-sampling RANKED=1` label the steps of 400 training questions by
rollouts and train a PRM on them. The policy then writes 16 responses to each of 300 questions of the tune split and 300
held-out ones of the test split, and the PRM scores every step. The aggregation of step scores is chosen on the tune
split (highest best-of-16).
Reported for the held-out questions are

    recovered = (best-of-16 - pass@1) / (pass@16 - pass@1)     how far the PRM gets from one response to the best of all
    auc       = ROC AUC of first-error detection               against exact checks of the steps up to each first error

with 95% bootstrap intervals over questions. Targets: recovered at least 0.5, auc above 0.9. Stages that are done are
not run again, and finished seeds stand in OUTPUT; the last line on stdout is its content as one JSON object.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from benchmarks.step_scoring import hardware
from examples.quickstart.run import command
from examples.quickstart.stages import Stage, exit_in_one_line, run_stages
from examples.rejection_sampling.run import MAX_NEW_TOKENS, MIX, POLICY, SAMPLED, hard_label_stages
from openrlhf_prm.cluster.accelerator import ROLLOUT_KV_CACHE_MB
from openrlhf_prm.data.questions import KEYS, write_question_file
from openrlhf_prm.evaluation.benchmarks.benchmark import ReadOptions
from openrlhf_prm.evaluation.benchmarks.best_of_n import BestOfN
from openrlhf_prm.evaluation.benchmarks.error_detection import detection_measures
from openrlhf_prm.evaluation.responses import by_question, read_samples
from openrlhf_prm.evaluation.summary import solution_score
from openrlhf_prm.evaluation.versions import versions
from openrlhf_prm.measures.choices import best_of_n, pass_at_k
from openrlhf_prm.measures.intervals import interval_of_sums, mean, share_interval, sums_by_question
from openrlhf_prm.tasks.arithmetic import questions
from vllm_prm.aggregation import SCORE_AGGREGATIONS
from vllm_prm.durable_file import write_atomically

QUESTIONS, N = 300, 16


def stages(folder: Path, seed: int) -> list[Stage]:
    """The labels, the PRM's training, and an evaluation on each of the two splits."""
    return hard_label_stages(folder, seed) + [
        Stage(
            f"evaluate_{split}",
            f"sample {N} responses to {QUESTIONS} questions of the {split} split and score their steps",
            command(
                *("evaluate", "--actor.model_name_or_path", POLICY, "--prm.model_name_or_path", folder / "prm"),
                *("--data.input", folder / f"{split}.jsonl", *KEYS, "--rollout.max_new_tokens", MAX_NEW_TOKENS),
                *("--eval.n_samples_per_prompt", N, "--eval.step_checker", "arithmetic", "--train.seed", seed),
                *("--eval.output", folder / f"{split}.json", "--eval.samples", folder / f"{split}.samples.jsonl"),
            ),
            [folder / f"{split}.samples.jsonl"],
            expected_s=120,
        )
        for split in ("tune", "test")
    ]


def write_splits(folder: Path, seed: int) -> None:
    """Questions of the train split for labels, and those of the tune and the test split to measure on."""
    write_question_file(folder / "label_questions.jsonl", questions("train", SAMPLED, seed, MIX))
    for split in ("tune", "test"):
        write_question_file(folder / f"{split}.jsonl", questions(split, QUESTIONS, seed, MIX))


def accuracies(samples: Path) -> dict[str, list[float]]:
    """Per question: pass@1, pass@16, and best-of-16 by each aggregation."""
    accuracies: dict[str, list[float]] = {}
    for group in by_question(read_samples(samples)).values():
        sampled = [response for response in group if response.kind == "sample"]
        correct = [response.correct for response in sampled]
        row = {"pass_1": pass_at_k(correct, 1), "pass_n": pass_at_k(correct, N)}
        for name in SCORE_AGGREGATIONS:
            row[name] = best_of_n([solution_score(response, name) for response in sampled], correct)
        for name, value in row.items():
            accuracies.setdefault(name, []).append(value)
    return accuracies


def measure(folder: Path, seed: int) -> dict:
    """The figures of one seed; the test split chooses nothing."""
    tune, test = (accuracies(folder / f"{split}.samples.jsonl") for split in ("tune", "test"))
    chosen = max(SCORE_AGGREGATIONS, key=lambda name: mean(tune[name]))
    one, best, every = test["pass_1"], test[chosen], test["pass_n"]
    columns = sums_by_question([str(index) for index in range(len(one))], one, best, every)
    responses = [response for response in read_samples(folder / "test.samples.jsonl") if response.kind == "sample"]
    items = BestOfN().read(folder / "test.samples.jsonl", ReadOptions())
    detection = detection_measures(items, [response.step_scores for response in responses], seed)
    shares = {"pass_1": one, "best_of_16": best, "pass_16": every}
    return {
        "aggregation": chosen,
        "tune_best_of_16": {name: round(mean(tune[name]), 4) for name in SCORE_AGGREGATIONS},
        **{name: round(mean(values), 4) for name, values in shares.items()},
        "recovered": round((sum(best) - sum(one)) / (sum(every) - sum(one)), 4),
        "auc": round(detection["first_error_auc"], 4),
        "brier": round(detection["calibration"]["brier"], 4),
        "ece": round(detection["calibration"]["ece"], 4),
        "intervals": {
            **{name: share_interval(values, seed=seed) for name, values in shares.items()},
            "recovered": interval_of_sums(columns, recovered, seed=seed),
            "auc": detection["first_error_auc_interval"],
        },
        "test_questions": len(one),
        "test_steps": detection["calibration"]["steps"],
    }


def recovered(sums):
    """Of sums of pass@1, best-of-16 and pass@16, (draws, 3) -> (draws,)."""
    return (sums[:, 1] - sums[:, 0]) / (sums[:, 2] - sums[:, 0])


def main(argv: list[str] | None = None) -> int:
    """Runs the seeds that OUTPUT lacks and prints it."""
    parser = argparse.ArgumentParser(prog="benchmarks.prm_quality", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", default="runs/prm_quality", help="labels, PRMs and samples")
    parser.add_argument("--output", default="benchmarks/results/prm_quality.json", help="the figures; continued")
    args = parser.parse_args(argv)
    os.environ.setdefault(ROLLOUT_KV_CACHE_MB, "128")
    output = Path(args.output)
    head = {
        "command": "python -m benchmarks.prm_quality",
        "policy": "examples/rejection_sampling/policy",
        "targets": {"recovered": 0.5, "auc": 0.9},
    }
    state = json.loads(output.read_text()) if output.exists() else {**head, "seeds": {}}
    if state["policy"] != head["policy"]:
        parser.error(f"--output: {output} was made with {state['policy']}, not {head['policy']}; choose another")
    for seed in args.seeds:
        if str(seed) in state["seeds"]:
            continue
        folder = Path(args.folder) / f"seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        write_splits(folder, seed)
        with exit_in_one_line():
            seconds = run_stages(stages(folder, seed), folder)
        state["seeds"][str(seed)] = {**measure(folder, seed), "seconds": seconds}
        state |= {"hardware": hardware(), "versions": versions()}
        write_atomically(output, json.dumps(state, indent=1) + "\n")
    figures = state["seeds"].values()
    state["reached"] = {name: all(row[name] >= goal for row in figures) for name, goal in head["targets"].items()}
    write_atomically(output, json.dumps(state, indent=1) + "\n")
    print(json.dumps(state))
    return 0


if __name__ == "__main__":
    sys.exit(main())
