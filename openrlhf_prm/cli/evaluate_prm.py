"""Measures a process reward model on a benchmark: `python -m openrlhf_prm.cli.evaluate --benchmark processbench ...`.

Every solution of the benchmark is scored once, by a vLLM engine in this process (`--prm.model_name_or_path`, any
family) or by a running `vllm-prm serve` (`--prm.url`). Scores are kept in `--eval.scores` batch by batch, so that a
killed run goes on, and another threshold or seed costs no scoring. Written are `--eval.output` (the numbers) and
`--eval.report` (tables and plots as one HTML file); the last line on stdout is the content of `--eval.output` as one
JSON object.

Exit codes: 0 done, 2 a flag, a row, or a solution longer than the PRM's context, 130 interrupted.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.answers.checkers import answer_checker
from openrlhf_prm.cli.parser import CHECKER_HELP, FlagParser, nested
from openrlhf_prm.cluster.accelerator import engine_dtype, on_cpu, prepare_environment
from openrlhf_prm.cluster.checks import require_at_least_one, require_checkpoint, require_family, require_urls
from openrlhf_prm.data.files import write_atomically
from openrlhf_prm.data.progress_file import ProgressFile
from openrlhf_prm.evaluation.benchmarks import BENCHMARKS, Item, MeasureOptions, ReadOptions
from openrlhf_prm.evaluation.benchmarks.benchmark import check_split
from openrlhf_prm.evaluation.scoring import collected, fingerprint, missing, score_missing
from openrlhf_prm.evaluation.table import print_tables
from openrlhf_prm.evaluation.versions import versions
from vllm_prm.aggregation import SCORE_AGGREGATIONS
from vllm_prm.errors import ContextLengthError
from vllm_prm.json_flags import json_object


def build_parser() -> FlagParser:
    """The flags of `evaluate --benchmark`."""
    parser = FlagParser(prog="evaluate", description="Measure a process reward model on a benchmark.")
    add = parser.add_argument
    add("--benchmark", required=True, choices=list(BENCHMARKS), help="what to measure on")
    add("--data.input", required=True, help="folder or file of the benchmark's data")
    add("--data.max_samples", type=int, help="first N solutions of each subset; best_of_n: first N questions")
    add("--data.input_key", default="question", help="best_of_n: key of the question in a row")
    add("--data.label_key", default="label", help="best_of_n: key of the reference answer in a row")
    add("--answers.checker", default="math", help=f"best_of_n, for rows without 'correct': {CHECKER_HELP}")
    add("--prm.model_name_or_path", help="checkpoint of the PRM")
    add("--prm.url", help="a running `vllm-prm serve`, instead of an engine in this process")
    add("--prm.api_key_env", help="environment variable with the server's API key")
    add("--prm.family", help="PRM family, where the checkpoint does not tell")
    add("--prm.family_options", help="options of the family as a JSON object")
    add("--prm.dtype", default="auto", help="data type of weights and computation")
    add("--prm.max_model_len", type=int, help="context length; shorter than the model's saves memory")
    add("--prm.tensor_parallel_size", type=int, default=1, help="GPUs over which the PRM is split")
    add("--prm.gpu_memory_utilization", type=float, help="share of GPU memory")
    add("--prm.enforce_eager", action="store_true", help="no CUDA graphs, faster start; always so on CPU")
    add("--eval.threshold", type=float, help="a step below it (prmbench: not above it) counts as judged wrong")
    defaults = ", ".join(f"{name}: {each.default_split}" for name, each in BENCHMARKS.items() if each.default_split)
    split = "where the threshold is chosen and nothing is reported: 'half' of the questions by hash, or a subset"
    add("--eval.threshold_split", help=f"{split}; without it {defaults}, prmbench: fixed at 0.5")
    add("--eval.vote_aggregation", default="min", choices=list(SCORE_AGGREGATIONS), help="plot of the weighted vote")
    add("--eval.scores", help="file that keeps the scores (None: OUTPUT.scores.jsonl)")
    add("--eval.output", required=True, help="JSON file of the numbers")
    add("--eval.report", help="HTML file of tables and plots")
    add(
        "--eval.truncate", action="store_true", help="leave steps beyond the PRM's context unscored instead of stopping"
    )
    add("--eval.batch_size", type=int, default=64, help="solutions scored between two writes")
    add("--eval.verbose", action="store_true", help="show what the engine logs")
    add("--train.seed", type=int, default=0, help="seed of the bootstrap")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = build_parser()
    args = nested(parser.parse_args(argv))
    try:
        items = check(args)
        scores = ProgressFile(scores_path(args), scores_settings(args))
    except ValueError as error:
        parser.error(str(error))
    with scores:
        prepare_environment()
        if not args.eval.verbose:
            os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        try:
            score(args, items, scores)
            result = measure(args, items, scores)
        except ContextLengthError as error:
            parser.error(f"--data.input: {error}; --eval.truncate scores the steps that fit".replace("\n", " "))
        except ValueError as error:
            parser.error(str(error))
        except KeyboardInterrupt:
            kept = f"{len(scores.finished)} scored solutions are in {scores.path}"
            print(f"evaluate: interrupted; {kept}, the same command goes on", file=sys.stderr)
            return 130
    print(json.dumps(result))
    return 0


def check(args: SimpleNamespace) -> list[Item]:
    """Everything that can be wrong with the flags and the data, before an engine starts; returns the items.

    Raises ValueError naming the flag, or the file and row.
    """
    if (args.prm.model_name_or_path is None) == (args.prm.url is None):
        raise ValueError("give one of --prm.model_name_or_path and --prm.url")
    require_at_least_one(args, "data.max_samples", "eval.batch_size", "prm.tensor_parallel_size", "prm.max_model_len")
    if args.prm.url is not None:
        require_urls("--prm.url", [args.prm.url])
    if args.prm.model_name_or_path is not None:
        require_checkpoint("--prm.model_name_or_path", args.prm.model_name_or_path)
    require_family(args.prm.family)
    for option in ("family", "family_options", "max_model_len"):
        if args.prm.url is not None and getattr(args.prm, option) is not None:
            raise ValueError(f"--prm.{option} is for an engine of our own, and with --prm.url the server has its own")
    if args.prm.family_options is not None:
        args.prm.family_options = json_object("--prm.family_options", args.prm.family_options)
    for flag, path in (("--eval.output", args.eval.output), ("--eval.report", args.eval.report)):
        if path is not None and Path(path).is_dir():
            raise ValueError(f"{flag}: {path} is a folder, not a file")
    if args.eval.report is not None and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--eval.report needs matplotlib: pip install 'openrlhf-prm[report]'")
    if len({args.eval.output, args.eval.report, scores_path(args)}) < 3:
        raise ValueError("--eval.output, --eval.report and --eval.scores must be three different files")
    source = Path(args.data.input)
    if not source.exists():
        raise ValueError(f"--data.input: no such file or folder: {source}")
    benchmark = BENCHMARKS[args.benchmark]
    options = ReadOptions(
        input_key=args.data.input_key,
        label_key=args.data.label_key,
        max_samples=args.data.max_samples,
        answer_checker=answer_checker(args.answers.checker),
    )
    items = benchmark.read(source, options)
    if not items:
        raise ValueError(f"--data.input: {source} holds no solution")
    if not benchmark.has_threshold and (args.eval.threshold is not None or args.eval.threshold_split is not None):
        raise ValueError(f"--eval.threshold and --eval.threshold_split mean nothing to --benchmark {args.benchmark}")
    check_split(items, measure_options(args), benchmark.default_split)
    return items


def scores_path(args: SimpleNamespace) -> str:
    """The file that keeps the scores."""
    return args.eval.scores or f"{args.eval.output}.scores.jsonl"


def scores_settings(args: SimpleNamespace) -> dict:
    """What the scores depend on; the file may only be continued with the same."""
    return {
        "--prm.model_name_or_path": args.prm.model_name_or_path,
        "state of the checkpoint": args.prm.model_name_or_path and fingerprint(args.prm.model_name_or_path),
        "--prm.url": args.prm.url,
        "--prm.family": args.prm.family,
        "--prm.family_options": args.prm.family_options,
        "--prm.dtype": args.prm.dtype,
        "--prm.max_model_len": args.prm.max_model_len,
        "--eval.truncate": args.eval.truncate,
    }


def measure_options(args: SimpleNamespace) -> MeasureOptions:
    """The options of the measures."""
    return MeasureOptions(
        threshold=args.eval.threshold,
        threshold_split=args.eval.threshold_split,
        vote_aggregation=args.eval.vote_aggregation,
        seed=args.train.seed,
    )


def score(args: SimpleNamespace, items: list[Item], scores: ProgressFile) -> None:
    """Scores what the file does not hold yet; starts no engine where it holds everything."""
    todo = missing(items, scores)
    if not todo:
        return
    from tqdm import tqdm

    from vllm_prm.scorer import StepScorer

    if args.prm.url is not None:
        scorer = StepScorer.from_url(args.prm.url, args.prm.api_key_env)
    else:
        engine = {
            "dtype": engine_dtype(args.prm.dtype),
            "max_model_len": args.prm.max_model_len,
            "tensor_parallel_size": args.prm.tensor_parallel_size,
            "gpu_memory_utilization": args.prm.gpu_memory_utilization,
            "enforce_eager": args.prm.enforce_eager or on_cpu(),
        }
        scorer = StepScorer.from_pretrained(
            args.prm.model_name_or_path,
            args.prm.family,
            family_options=args.prm.family_options,
            **{name: value for name, value in engine.items() if value is not None},
        )
    try:
        with tqdm(
            total=len(items), initial=len(items) - len(todo), desc="scoring", unit="solution", mininterval=1
        ) as bar:
            score_missing(items, scorer, scores, args.eval.batch_size, args.eval.truncate, bar.update)
    finally:
        scorer.shutdown()


def measure(args: SimpleNamespace, items: list[Item], scores: ProgressFile) -> dict:
    """The numbers; written, drawn and printed as tables."""
    benchmark = BENCHMARKS[args.benchmark]
    numbers = benchmark.measure(items, collected(items, scores), measure_options(args))
    result = {
        "benchmark": args.benchmark,
        "prm": args.prm.model_name_or_path or args.prm.url,
        "data": args.data.input,
        "solutions": len(items),
        **numbers,
        "seed": args.train.seed,
        "versions": versions(),
    }
    write_atomically(Path(args.eval.output), json.dumps(result, indent=2) + "\n")
    tables = benchmark.tables(result)
    if args.eval.report is not None:
        from openrlhf_prm.report.benchmark_page import render_benchmark

        page = render_benchmark(
            f"{benchmark.title}: {Path(result['prm']).name}", result, tables, benchmark.plots(result)
        )
        write_atomically(Path(args.eval.report), page)
    print_tables(tables)
    return result
