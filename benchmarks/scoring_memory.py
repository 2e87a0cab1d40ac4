"""Memory of `vllm-prm serve` and of the offline scorer while they score ever more growing solutions.

Solutions grow step by step, one request for each step; when all are whole they begin anew with other questions. Scores
are remembered up to --score-cache-size, small here as the engine's cache is, so that both are full early. After each
1,000 requests the resident memory of all processes is noted, until --requests or --minutes. The last line of output is
one JSON object: for the server and the scorer the requests, the memory after the first thousand and at the end, the
slope over the second half (least squares, MiB for 1,000 requests), and what that slope would add in 100,000 requests:
an extrapolation.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path

from benchmarks.step_scoring import MODELS, hardware, identity, measured_before
from vllm_prm.durable_file import write_atomically

CHUNK = 1000
KV_CACHE = 64 << 20
"""Small, so that all its pages are touched early."""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's flags, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scoring_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="a ProcessBench file, e.g. processbench/gsm8k.json")
    parser.add_argument("--items", type=int, default=64, help="solutions that grow together (default 64)")
    parser.add_argument("--requests", type=int, default=100_000, help="at most (default 100000)")
    parser.add_argument("--minutes", type=float, default=10, help="at most, for each of the two (default 10)")
    parser.add_argument("--clients", type=int, default=16, help="of the server (default 16)")
    parser.add_argument("--score-cache-size", type=int, default=1000, help="remembered scores (default 1000)")
    parser.add_argument("--threads", type=int, default=2, help="of an engine (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default 0)")
    parser.add_argument("--model", choices=MODELS, default="3M", help="parameters, about (default 3M)")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/scoring_memory"), help="model and measurements")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/scoring_memory.json"))
    parser.add_argument("--fresh", action="store_true", help="measure again what --work-dir already holds")
    args = parser.parse_args(argv)
    args.longest = False
    for name in ("items", "requests", "minutes", "clients", "threads"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name} must be above 0, got {getattr(args, name)}")
    return args


def growing_requests(solutions: Sequence[tuple[str, list[str]]]) -> Iterator[tuple[str, list[str]]]:
    """Without end: all solutions with one step, with two, ...; then the same with other questions."""
    from benchmarks.step_scoring_worker import growing

    for number in count():
        for group in growing(solutions):
            for _, (question, steps) in group:
                yield f"({number}) {question}", steps


def resident_mib(pid: int) -> float:
    """Resident memory of a process and its descendants, in MiB."""
    total = 0.0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            total = int(line.split()[1]) / 1024
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            total += resident_mib(int(child))
    return total


def follow(score: Callable[[list], None], memory: Callable[[], float], args: argparse.Namespace) -> list[list[float]]:
    """[requests so far, MiB] after each thousand."""
    from benchmarks.step_scoring_worker import load_solutions

    requests = growing_requests(load_solutions(args.data, args.items, False))
    seen: list[list[float]] = []
    end = time.monotonic() + 60 * args.minutes
    while time.monotonic() < end and len(seen) * CHUNK < args.requests:
        score(list(islice(requests, CHUNK)))
        seen.append([(len(seen) + 1) * CHUNK, memory()])
        print(f"{seen[-1][0]} requests: {seen[-1][1]:.0f} MiB", file=sys.stderr, flush=True)
    return seen


def summary(seen: Sequence[Sequence[float]]) -> dict[str, float]:
    """The figures of one of the two; without a slope for fewer than four entries."""
    figures = {"requests": seen[-1][0], "first_mib": seen[0][1], "last_mib": seen[-1][1]}
    half = seen[len(seen) // 2 :]
    if len(half) > 1:
        middle_x, middle_y = (sum(entry[axis] for entry in half) / len(half) for axis in (0, 1))
        slope = sum((x - middle_x) * (y - middle_y) for x, y in half) / sum((x - middle_x) ** 2 for x, _ in half)
        figures["half_mib"] = half[0][1]
        figures["slope_mib_per_1000"] = 1000 * slope
        figures["extrapolated_growth_mib_in_100000"] = 100_000 * slope
    return figures


def of_server(args: argparse.Namespace, model: Path) -> list[list[float]]:
    """The server's memory, asked by clients."""
    from benchmarks.scoring_server import ask, environment, server

    os.environ.update(environment(args.threads))
    flags = ["--score-cache-size", str(args.score_cache_size), "--kv-cache-memory-bytes", str(KV_CACHE)]
    with server(model, args.work_dir / "server.log", flags) as (url, pid):

        def score(work: list) -> None:
            answers, _ = asyncio.run(ask(url, work, args.clients))
            if None in answers or len(answers) != len(work):
                raise RuntimeError("an answer was lost")

        return follow(score, lambda: resident_mib(pid), args)


def of_scorer(args: argparse.Namespace, model: Path) -> list[list[float]]:
    """This process's memory, with `StepScorer` in it."""
    from benchmarks.step_scoring_systems import QWEN, engine_arguments
    from benchmarks.step_scoring_worker import settings

    os.environ.update(settings(args.threads))
    from vllm_prm.scorer import StepScorer

    arguments = {**engine_arguments(), "kv_cache_memory_bytes": KV_CACHE}
    scorer = StepScorer.from_pretrained(str(model), QWEN[0], score_cache_size=args.score_cache_size, **arguments)

    def score(work: list) -> None:
        for start in range(0, len(work), args.clients):
            scorer.score(work[start : start + args.clients])

    return follow(score, lambda: resident_mib(os.getpid()), args)


def run(args: argparse.Namespace) -> None:
    """Both, where they are not there yet, and the record."""
    from benchmarks.step_scoring_checkpoints import build_checkpoint

    same = {**identity(args), "clients": args.clients, "score_cache_size": args.score_cache_size}
    kept = args.work_dir / "memory.json"
    found: dict[str, list] = measured_before(kept, same, args).get("found", {})
    model = args.work_dir / f"model-{args.model}"
    build_checkpoint(model, args.seed, args.model)
    for name, measure in {"server": of_server, "scorer": of_scorer}.items():
        if name not in found:
            found[name] = measure(args, model)
            write_atomically(kept, json.dumps({"identity": same, "found": found}))
    figures = {name: summary(seen) for name, seen in found.items()}
    command = f"python -m benchmarks.scoring_memory --data {args.data.name} --minutes {args.minutes:g}"
    record = {"command": command, **same, "hardware": hardware(), **figures, "memory_mib": found}
    write_atomically(args.output, json.dumps(record) + "\n")
    print(json.dumps(figures))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; a user's mistake ends with one line on stderr and status 2."""
    try:
        run(parse_arguments(argv))
    except ValueError as error:
        print(f"scoring_memory: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
