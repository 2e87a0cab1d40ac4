"""Rejection-sampling SFT on one CPU machine: `make rejection-sampling`, or `python -m examples.rejection_sampling.run`.

A small policy answers 400 questions of its training split 16 times each; its own right answers, different ones
and at most 4 a question, are what `openrlhf.cli.train_sft` trains it on; both policies are measured on held-out
questions. With `--rank` a PRM is trained first, on hard labels, and ranks the right answers by their step scores.
Every stage is a command a user of the project would type. Interrupted, it goes on where it stopped.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from examples.quickstart.run import command, prm_stages
from examples.quickstart.stages import Stage, exit_in_one_line, made_folder, run_stages
from openrlhf_prm.cluster.accelerator import ROLLOUT_KV_CACHE_MB, cpu_training_flags, on_cpu, prepare_environment
from openrlhf_prm.data.questions import KEYS, write_question_file
from openrlhf_prm.evaluation.responses import by_question, read_samples
from openrlhf_prm.evaluation.table import print_results
from openrlhf_prm.evaluation.versions import versions
from openrlhf_prm.measures.intervals import paired_gain
from openrlhf_prm.tasks.arithmetic import HabitMix, questions
from vllm_prm.durable_file import write_atomically

POLICY = Path(__file__).parent / "policy"
SAMPLED, TESTED, SAMPLES = 400, 300, 16
MAX_NEW_TOKENS = 200
MIX = HabitMix(carry=0.18)


def write_data(folder: Path, seed: int, split: str) -> None:
    """The questions to sample from the train split, whose steps a PRM may be labelled on, and those of the split to
    measure on.
    """
    files = {
        "questions": ("train", SAMPLED),
        "label_questions": ("train", SAMPLED),
        f"{split}_questions": (split, TESTED),
    }
    for name, (source, count) in files.items():
        write_question_file(folder / f"{name}.jsonl", questions(source, count, seed, MIX))


def hard_label_stages(folder: Path, seed: int) -> list[Stage]:
    """A PRM in `folder`/prm that tells whether a step can still end right, of hard labels of `label_questions`."""
    training = ("--train.max_epochs", 5, "--data.label_kind", "hard")
    labelling = ("--rollout.max_new_tokens", MAX_NEW_TOKENS)
    return prm_stages(folder, seed, POLICY, labelling, training, expected_s=(80, 70))


def stages(folder: Path, args: argparse.Namespace) -> list[Stage]:
    """The stages in order."""
    seed, data, tuned = args.seed, folder / "sft.jsonl", folder / "policy_sft"
    ranking = ["--prm.model_name_or_path", folder / "prm"] if args.rank else []
    models = [("before", POLICY), ("after", tuned)]
    sft = [
        *("--model.model_name_or_path", POLICY, "--data.dataset", data, "--data.input_template", "{}"),
        *("--data.input_key", "input", "--data.output_key", "output", "--data.max_len", MAX_NEW_TOKENS + 64),
        *("--train.batch_size", 64, "--train.micro_batch_size", 64, "--train.max_epochs", args.epochs),
        *("--adam.lr", args.lr, "--train.seed", seed, "--ckpt.output_dir", tuned),
        *("--ckpt.path", folder / "policy_sft_ckpt", *(cpu_training_flags() if on_cpu() else [])),
    ]
    return [
        *(hard_label_stages(folder, seed) if args.rank else []),
        Stage(
            "rejection_sample",
            f"sample {SAMPLES} answers to {SAMPLED} questions and keep the best right ones",
            command(
                *("rejection_sample", "--actor.model_name_or_path", POLICY, *KEYS, *ranking),
                *("--data.input", folder / "questions.jsonl", "--data.output", data, "--train.seed", seed),
                *("--rollout.n_samples_per_prompt", SAMPLES, "--rollout.max_new_tokens", MAX_NEW_TOKENS),
                *("--select.max_per_question", 4),
            ),
            [data],
            expected_s=90,
        ),
        Stage(
            "train_sft",
            "fine-tune the policy on them (openrlhf.cli.train_sft)",
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1"),
                *("-m", "openrlhf.cli.train_sft", *map(str, sft)),
            ],
            [tuned / "config.json"],
            expected_s=60,
            fresh=(tuned,),
        ),
        Stage(
            "evaluate",
            f"evaluate on {TESTED} questions of the {args.split} split",
            command(
                *("evaluate", "--actor.model_name_or_path", *(path for _, path in models), *KEYS),
                *("--data.input", folder / f"{args.split}_questions.jsonl", "--train.seed", seed),
                *("--rollout.max_new_tokens", MAX_NEW_TOKENS, "--eval.n_samples_per_prompt", 8),
                *("--eval.step_checker", "arithmetic"),
                *("--eval.output", *(folder / f"{name}.json" for name, _ in models)),
                *("--eval.samples", *(folder / f"{name}.samples.jsonl" for name, _ in models)),
            ),
            [folder / f"{name}.json" for name, _ in models],
            expected_s=120,
        ),
    ]


def gain(folder: Path, before: str, after: str, kind: str, seed: int) -> dict:
    """How many more responses of a kind are right in one evaluation than in another, with its 95% interval over the
    same questions.
    """
    values = [
        [
            sum(r.correct for r in group if r.kind == kind) / sum(r.kind == kind for r in group)
            for group in by_question(read_samples(folder / f"{name}.samples.jsonl")).values()
        ]
        for name in (before, after)
    ]
    return paired_gain(*values, seed=seed)


def result_of(folder: Path, args: argparse.Namespace, seconds: dict[str, float]) -> dict:
    """What was sampled, both evaluations, and the gain between them."""
    evaluations = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("before", "after")}
    pair = ("before", "after")
    log = (folder / "logs" / "rejection_sample.log").read_text().splitlines()
    return {
        "rejection_sampling": json.loads(next(line for line in reversed(log) if line.startswith("{"))),
        **evaluations,
        "gain": {
            "greedy": gain(folder, *pair, "greedy", args.seed),
            "mean_at_8": gain(folder, *pair, "sample", args.seed),
        },
        "settings": {
            "policy": POLICY.name,
            "rank": args.rank,
            "epochs": args.epochs,
            "lr": args.lr,
            "split": args.split,
        },
        "seconds": seconds | {"total": round(sum(seconds.values()), 1)},
        "seed": args.seed,
        "versions": versions(),
    }


def main() -> None:
    """Runs the stages, writes result.json and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rank", action="store_true", help="train a PRM first, and let it rank the right answers")
    parser.add_argument("--epochs", type=int, default=3, help="of the fine-tuning")
    parser.add_argument("--lr", type=float, default=5e-4, help="of the fine-tuning")
    parser.add_argument("--split", choices=["test", "tune"], default="test", help="where accuracy is measured")
    parser.add_argument(
        "--output", help="folder; default runs/rejection_sampling, or with -ranked and -seedN behind it"
    )
    args = parser.parse_args()
    name = "runs/rejection_sampling" + ("-ranked" if args.rank else "") + (f"-seed{args.seed}" if args.seed else "")
    folder = made_folder(args.output or name)
    prepare_environment()
    os.environ.setdefault(ROLLOUT_KV_CACHE_MB, "128")
    write_data(folder, args.seed, args.split)
    with exit_in_one_line():
        seconds = run_stages(stages(folder, args), folder)
    result = result_of(folder, args, seconds)
    write_atomically(folder / "result.json", json.dumps(result, indent=2) + "\n")
    print_results([result["before"], result["after"]])
    for measure, gain in result["gain"].items():
        low, high = (100 * bound for bound in gain["interval"])
        print(f"{measure}: {100 * gain['gain']:+.1f} points (95% interval {low:+.1f} to {high:+.1f})")
    print(f"result: {folder / 'result.json'}")


if __name__ == "__main__":
    main()
