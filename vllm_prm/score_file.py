"""`vllm-prm score`: a JSONL file of solutions in, the same lines with `step_rewards` (and `score`) out.

Results go to `OUTPUT.partial` batch by batch and the file takes its name when it is complete, so `OUTPUT` is never
half a file. Started again after an interruption, lines already in `OUTPUT.partial` are kept and checked against the
input.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from tqdm import tqdm

from vllm_prm.aggregation import SCORE_AGGREGATIONS
from vllm_prm.json_flags import json_object
from vllm_prm.protocol import StepRewardItem, aggregated
from vllm_prm.scorer import StepScorer

ADDED_FIELDS = ("step_rewards", "score", "critiques", "malformed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `vllm-prm score`."""
    parser.add_argument(
        "--input", default="-", help="JSONL with question (or messages) and steps (or response); - = stdin"
    )
    parser.add_argument("--output", default="-", help="JSONL; - = stdout, which cannot be resumed")
    parser.add_argument("--aggregate", choices=sorted(SCORE_AGGREGATIONS), help="also write one score per solution")
    parser.add_argument("--truncate", action="store_true", help="null instead of an error beyond the PRM's context")
    parser.add_argument("--batch-size", type=int, default=256, help="solutions per write")
    parser.add_argument("--url", help="score through this server instead of an engine of our own")
    parser.add_argument("--api-key-env", help="environment variable with the server's API key")
    parser.add_argument(
        "--engine-args", default="{}", help='vLLM engine arguments as JSON, e.g. {"tensor_parallel_size": 2}'
    )


def read_items(lines: Sequence[str]) -> list[tuple[dict, StepRewardItem]]:
    """Each line as (the whole object, the solution in it). `ValueError` naming the line that is wrong."""
    items = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            item = StepRewardItem(**{name: row[name] for name in StepRewardItem.model_fields if name in row})
        except (json.JSONDecodeError, ValidationError, TypeError) as error:
            raise ValueError(f"line {number} of the input: {error}") from error
        clash = [name for name in ADDED_FIELDS if name in row]
        if clash:
            raise ValueError(f"line {number} of the input already has {clash}")
        items.append((row, item))
    return items


def finished_lines(partial: Path, rows: Sequence[dict]) -> int:
    """How many lines of an interrupted output can be kept; cuts a last line that was not written out.

    Raises `ValueError` when they belong to another input.
    """
    if not partial.exists():
        return 0
    content = partial.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if len(complete) < len(content):
        os.truncate(partial, len(complete))
    kept = complete.decode().split("\n")[:-1]  # splitlines would also cut at separators inside texts
    for number, line in enumerate(kept, start=1):
        row = {name: value for name, value in json.loads(line).items() if name not in ADDED_FIELDS}
        if number > len(rows) or row != rows[number - 1]:
            raise ValueError(f"line {number} of {partial} does not belong to this input; remove the file to start over")
    return len(kept)


def score_file(args: argparse.Namespace) -> None:
    """Run `vllm-prm score` with parsed `args`."""
    if args.batch_size < 1:
        raise ValueError(f"--batch-size must be 1 or more, got {args.batch_size}")
    if args.model is None and not args.url:
        raise ValueError("name the PRM (a folder or hub id), or a server with --url")
    ours = {"--family": args.family, "--family-options": args.family_options, "--engine-args": args.engine_args != "{}"}
    for flag, given in ours.items():
        if given and args.url:
            raise ValueError(f"{flag} is for an engine of our own, and with --url the server has its own")
    if args.api_key_env and not args.url:
        raise ValueError("--api-key-env is for a server: give its --url")
    engine_args = json_object("--engine-args", args.engine_args)
    items = read_items(_read(args.input).split("\n"))
    to_stdout = args.output == "-"
    partial = None if to_stdout else Path(args.output + ".partial")
    if partial is not None and not partial.parent.is_dir():
        raise ValueError(f"--output {args.output}: the folder {partial.parent} does not exist")
    done = 0 if partial is None else finished_lines(partial, [row for row, _ in items])
    # vLLM logs to stdout; results that go there must not be mixed with its lines.
    out = os.fdopen(os.dup(1), "w") if to_stdout else partial.open("a")
    if to_stdout:
        os.dup2(2, 1)
    with out, tqdm(total=len(items), initial=done, unit="solution", file=sys.stderr) as bar:
        scorer = _start(args, engine_args) if done < len(items) else None
        for start in range(done, len(items), args.batch_size):
            batch = items[start : start + args.batch_size]
            outputs = scorer.output_fields([item for _, item in batch], truncate=args.truncate)
            for (row, _), fields in zip(batch, outputs, strict=True):
                row = {**row, **fields}
                if args.aggregate:
                    row["score"] = aggregated(fields["step_rewards"], args.aggregate)
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.flush()
            if not to_stdout:
                os.fsync(out.fileno())
            bar.update(len(batch))
        if scorer is not None:
            scorer.shutdown()
    if partial is not None:
        partial.replace(args.output)


def _read(source: str) -> str:
    if source == "-":
        return sys.stdin.read()
    try:
        return Path(source).read_text()
    except OSError as error:
        raise ValueError(f"--input {source} cannot be read: {error.strerror}") from error


def _start(args: argparse.Namespace, engine_args: dict) -> StepScorer:
    if args.url:
        return StepScorer.from_url(args.url, args.api_key_env, model=args.model)
    return StepScorer.from_pretrained(args.model, args.family, family_options=args.family_options, **engine_args)
