"""Measures a process reward model on a benchmark: `python -m openrlhf_prm.cli.evaluate --benchmark processbench ...`.

Every solution of the benchmark is scored once, by a vLLM engine in this process (`--prm.model_name_or_path`, any
family) or by a running `vllm-prm serve` (`--prm.url`). Scores are kept in `--eval.scores` batch by batch, so that a
killed run goes on, and another threshold or seed costs no scoring. Written are `--eval.output` (the numbers) and
`--eval.report` (tables and plots as one HTML file); the last line on stdout is the content of `--eval.output` as one
JSON object.

Exit codes: 0 done, 1 the server failed, 2 a flag, a row, or a solution longer than the PRM's context, 130 interrupted.
"""

import importlib.util
import json
import os
import sys
from functools import reduce
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.answers.checkers import answer_checker
from openrlhf_prm.cli.parser import CHECKER_HELP, FlagParser, nested
from openrlhf_prm.cluster.accelerator import prepare_environment
from openrlhf_prm.cluster.dry_run import add_dry_run_flags, asked_for
from openrlhf_prm.cluster.engine_preflight import dry_run_engines
from openrlhf_prm.data.ledger import Ledger
from openrlhf_prm.evaluation.benchmark_run import BenchmarkRun, ScoringOptions, read_solutions
from openrlhf_prm.evaluation.benchmarks import BENCHMARKS, MeasureOptions, ReadOptions
from openrlhf_prm.evaluation.prm_source import PrmSource
from openrlhf_prm.evaluation.table import print_tables
from openrlhf_prm.options import add_flags, build, named_in, refuse_unread
from vllm_prm.durable_file import write_atomically
from vllm_prm.errors import ContextLengthError, StepScoringError
from vllm_prm.interrupts import end_as_after_ctrl_c
from vllm_prm.splitters import STEP_SPLITTERS


def build_parser() -> FlagParser:
    """The flags of `evaluate --benchmark`."""
    parser = FlagParser(prog="evaluate", description="Measure a process reward model on a benchmark.")
    add = parser.add_argument
    add("--benchmark", required=True, choices=list(BENCHMARKS), help="what to measure on")
    add("--data.input", required=True, help="folder or file of the benchmark's data")
    add_flags(parser, "data", ReadOptions)
    add("--answers.checker", help=f"best_of_n, for rows without 'correct': {CHECKER_HELP} (default 'math')")
    text = "best_of_n, for rows without 'steps': where a reasoning step ends (default auto)"
    add("--steps.splitter", **named_in(STEP_SPLITTERS), help=text)
    add_flags(parser, "prm", PrmSource)
    add_flags(parser, "eval", MeasureOptions)
    add_flags(parser, "eval", ScoringOptions)
    add("--eval.scores", help="file that keeps the scores (default OUTPUT.scores.jsonl)")
    add("--eval.output", required=True, help="JSON file of the numbers")
    add("--eval.report", help="HTML file of tables and plots")
    add("--eval.verbose", action="store_true", help="show what the engine logs")
    add("--train.seed", type=int, default=0, help="seed of the bootstrap")
    add_dry_run_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    end_as_after_ctrl_c()
    parser = build_parser()
    args = nested(parser.parse_args(argv))
    try:
        run = run_of(args)
        if asked_for(args):
            dry_run_engines(args, run.prm.own_engines, in_process=True)
            return 0
        scores = run.open_scores()
    except ValueError as error:
        parser.error(str(error))
    with scores:
        prepare_environment()
        if not args.eval.verbose:
            os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        ledger = Ledger(Path(args.eval.output).parent, Path(args.eval.output).name)
        ledger.began()
        try:
            run.score(scores)
            result = run.measure(scores)
            run.book(ledger, scores)
        except ContextLengthError as error:
            parser.error(f"--data.input: {error}; --eval.truncate scores the steps that fit".replace("\n", " "))
        except ValueError as error:
            parser.error(str(error))
        except (KeyboardInterrupt, StepScoringError) as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            kept = f"{len(scores.finished)} scored solutions are in {scores.path}, the same command goes on"
            print(f"evaluate: {'interrupted' if interrupted else error}; {kept}", file=sys.stderr)
            return 130 if interrupted else 1
    write(run, result, Path(args.eval.output), args.eval.report and Path(args.eval.report))
    print(json.dumps(result))
    return 0


def run_of(args: SimpleNamespace) -> BenchmarkRun:
    """What the flags ask for, with everything checked that can be before an engine starts.

    Raises ValueError naming the flag, or the file and row.
    """
    refuse_foreign_flags(args)
    prm = build(PrmSource, args.prm, "prm")
    prm.check()
    unread = prm.unread("prm")
    for name, needed in unread.items():
        refuse_unread(args.prm, "prm", vars(args.prm).keys() - {name}, f"needs {needed}")
    scoring = build(ScoringOptions, args.eval, "eval")
    measuring = build(MeasureOptions, args.eval, "eval", seed=args.train.seed)
    checker, splitter = answer_checker(args.answers.checker or "math"), args.steps.splitter or "auto"
    reading = build(ReadOptions, args.data, "data", answer_checker=checker, splitter=splitter)
    scores = args.eval.scores or f"{args.eval.output}.scores.jsonl"
    check_files(args.eval.output, args.eval.report, scores)
    return BenchmarkRun(
        name=args.benchmark,
        data=args.data.input,
        solutions=read_solutions(args.benchmark, Path(args.data.input), reading, measuring),
        prm=prm,
        scoring=scoring,
        measuring=measuring,
        scores=Path(scores),
    )


def refuse_foreign_flags(args: SimpleNamespace) -> None:
    """Raises ValueError for a flag that this benchmark does not read and another does."""
    for flag in sorted(frozenset().union(*(benchmark.reads for benchmark in BENCHMARKS.values()))):
        if reduce(getattr, flag.split("."), args) is not None and flag not in BENCHMARKS[args.benchmark].reads:
            raise ValueError(f"--{flag} means nothing to --benchmark {args.benchmark}")


def check_files(output: str, report: str | None, scores: str) -> None:
    """Raises ValueError for files that cannot be written."""
    for flag, path in (("--eval.output", output), ("--eval.report", report)):
        if path is not None and Path(path).is_dir():
            raise ValueError(f"{flag}: {path} is a folder, not a file")
    if report is not None and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--eval.report needs matplotlib: pip install matplotlib")
    if len({output, report, scores}) < 3:
        raise ValueError("--eval.output, --eval.report and --eval.scores must be three different files")


def write(run: BenchmarkRun, result: dict, output: Path, report: Path | None) -> None:
    """The numbers as a file, as a page where one was asked for, and as tables on the terminal."""
    write_atomically(output, json.dumps(result, indent=2) + "\n")
    tables = run.benchmark.tables(result)
    if report is not None:
        from openrlhf_prm.report.benchmark_page import render_benchmark

        title = f"{run.benchmark.title}: {Path(run.prm.name).name}"
        write_atomically(report, render_benchmark(title, result, tables, run.benchmark.plots(result)))
    print_tables(tables)
