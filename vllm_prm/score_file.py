"""`vllm-prm score`: a JSONL file of solutions in, the same lines with `step_rewards` (and `score`) out.

Results go to `OUTPUT.partial`, a `DurableFile`, batch by batch, and `OUTPUT` appears when they are complete, so it is
never half a file. Started again after an interruption with the same PRM and settings, lines already in `OUTPUT.partial`
are kept and checked against the input.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError
from tqdm import tqdm

from vllm_prm.aggregation import SCORE_AGGREGATIONS, require_aggregation
from vllm_prm.checkpoint import TOKENIZER_OPTIONS, load_served_family
from vllm_prm.durable_file import DurableFile, checkpoint_state, in_order, json_line, write_atomically
from vllm_prm.engine_output import engine_output
from vllm_prm.errors import in_words
from vllm_prm.json_flags import json_object
from vllm_prm.protocol import StepRewardItem, aggregated
from vllm_prm.scorer import StepScorer

ADDED_FIELDS = ("step_rewards", "score", "critiques", "malformed", "empty_critiques", "cut_off_critiques")

Items = list[tuple[dict, StepRewardItem]]

_HOW_FAST = {
    *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "gpu_memory_utilization"),
    *("max_num_seqs", "max_num_batched_tokens", "enforce_eager", "kv_cache_memory_bytes", "swap_space"),
}
"""Engine arguments on which the scores do not depend: another run may go on with others."""


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
    parser.add_argument(
        "--api-key-env", help="environment variable with the server's API key (or NAME_FILE: a file with it)"
    )
    parser.add_argument(
        "--engine-args", default="{}", help='vLLM engine arguments as JSON, e.g. {"tensor_parallel_size": 2}'
    )


def read_items(lines: Sequence[str]) -> Items:
    """Each line as (the whole object, the solution in it). `ValueError` naming the line that is wrong."""
    items = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _object(line)
            item = StepRewardItem(**{name: row[name] for name in StepRewardItem.model_fields if name in row})
        except ValidationError as error:
            raise ValueError(f"line {number} of the input: {in_words(error)}") from None
        except ValueError as error:
            raise ValueError(f"line {number} of the input: {error}") from None
        clash = [name for name in ADDED_FIELDS if name in row]
        if clash:
            raise ValueError(f"line {number} of the input already has {clash}")
        items.append((row, item))
    return items


def _object(line: str) -> dict:
    try:
        row = json.loads(line, parse_constant=_not_json)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON, {error.msg[0].lower()}{error.msg[1:]} at character {error.pos + 1}") from None
    if not isinstance(row, dict):
        raise ValueError(f"a JSON object is needed, got {line.strip()[:40]}")
    return row


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def score_file(args: argparse.Namespace) -> None:
    """Run `vllm-prm score` with parsed `args`. Raises ValueError for what is wrong with the flags or the input."""
    engine_args = _checked_engine_args(args)
    items = read_items(_read(args.input).split("\n"))
    if args.output == "-":
        _score_to_stdout(args, engine_args, items)
        return
    output = Path(args.output)
    if not output.parent.is_dir():
        raise ValueError(f"--output {output}: the folder {output.parent} does not exist")
    if output.is_dir():
        raise ValueError(f"--output {output} is a folder, not a file")
    partial = output.with_name(output.name + ".partial")
    with DurableFile(partial, _settings(args, engine_args), in_order) as scores:
        _require_same_input(scores, items)
        _score_rest(args, engine_args, items, len(scores.finished), scores.append)
        write_atomically(output, scores.lines())
        partial.unlink()


def _checked_engine_args(args: argparse.Namespace) -> dict:
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
    return json_object("--engine-args", args.engine_args)


def _settings(args: argparse.Namespace, engine_args: dict) -> dict:
    """What the scores depend on; a file may only be continued with the same."""
    return {
        "model": args.model,
        "state of the model": None if args.model is None else checkpoint_state(args.model),
        "--url": args.url,
        "--family": args.family,
        "--family-options": args.family_options,
        "--engine-args": {name: value for name, value in engine_args.items() if name not in _HOW_FAST},
        "--aggregate": args.aggregate,
        "--truncate": args.truncate,
    }


def _require_same_input(scores: DurableFile, items: Items) -> None:
    for number, kept in enumerate(scores.rows(), start=1):
        row = {name: value for name, value in kept.items() if name not in ADDED_FIELDS}
        if number > len(items) or row != items[number - 1][0]:
            fault = "does not belong to this input; remove the file to start over"
            raise ValueError(f"solution {number} of {scores.path} {fault}")


def _score_to_stdout(args: argparse.Namespace, engine_args: dict, items: Items) -> None:
    # vLLM logs to stdout; results that go there must not be mixed with its lines.
    with os.fdopen(os.dup(1), "wb") as out:

        def write(rows: list[dict]) -> None:
            out.writelines(map(json_line, rows))
            out.flush()

        _score_rest(args, engine_args, items, 0, write)


def _score_rest(
    args: argparse.Namespace, engine_args: dict, items: Items, done: int, write: Callable[[list[dict]], None]
) -> None:
    """Scores what comes after the first `done` solutions and writes it batch by batch; where nothing does, no engine
    starts.
    """
    if done == len(items):
        return
    with engine_output() as output:
        with tqdm(total=len(items), initial=done, unit="solution", file=output.stderr) as bar:
            scorer = _start(args, engine_args)
            for rows in _batches(args, scorer, items[done:]):
                write(rows)
                bar.update(len(rows))
        output.hush()
        scorer.shutdown()


def _batches(args: argparse.Namespace, scorer: StepScorer, items: Items) -> Iterator[list[dict]]:
    for start in range(0, len(items), args.batch_size):
        batch = items[start : start + args.batch_size]
        outputs = scorer.output_fields([item for _, item in batch], truncate=args.truncate)
        rows = [{**row, **fields} for (row, _), fields in zip(batch, outputs, strict=True)]
        if args.aggregate:
            rows = [{**row, "score": aggregated(row["step_rewards"], args.aggregate)} for row in rows]
        yield rows


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
    if args.aggregate:
        named = {name: engine_args[name] for name in TOKENIZER_OPTIONS if name in engine_args}
        family = load_served_family(args.model, args.family, options=args.family_options, **named)
        require_aggregation(args.aggregate, family.score_range)
    return StepScorer.from_pretrained(args.model, args.family, family_options=args.family_options, **engine_args)
