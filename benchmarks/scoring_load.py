"""`vllm-prm serve` under many clients at once, against the offline scorer on the same solutions.

Each client waits for its answer before it asks again; a request is a solution. Server and offline scorer are up
together and take turns, --rounds times, because other work on the machine then falls on both. The last line of output
is one JSON object: for each number of clients the medians of seconds and requests per second, the share of the offline
throughput that the server reaches (median of the rounds' ratios), the median and 99th percentile of all requests'
seconds, the number of answers and of lost ones, and the largest difference of the scores from the offline ones.

Every finished round is kept in --work-dir; started again, the command goes on where it stopped.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.step_scoring import MODELS, hardware, identity, measured_before, worst_difference
from vllm_prm.durable_file import write_atomically


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's flags, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scoring_load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="a ProcessBench file, e.g. processbench/gsm8k.json")
    parser.add_argument("--items", type=int, default=64, help="solutions (default 64)")
    parser.add_argument("--clients", type=int, nargs="+", default=[64, 256], help="default 64 256")
    parser.add_argument("--requests-per-client", type=int, default=2, help="default 2")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--threads", type=int, default=2, help="threads of each engine (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default 0)")
    parser.add_argument("--model", choices=MODELS, default="50M", help="parameters, about (default 50M)")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/scoring_load"), help="model and measurements")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/scoring_load.json"))
    parser.add_argument("--fresh", action="store_true", help="measure again what --work-dir already holds")
    args = parser.parse_args(argv)
    args.longest = False
    for name in ("items", "requests_per_client", "rounds", "threads"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more, got {getattr(args, name)}")
    if min(args.clients) < 1:
        parser.error(f"--clients must be 1 or more, got {min(args.clients)}")
    return args


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def summary(rounds: Sequence[dict]) -> dict[str, float]:
    """The figures of one number of clients."""
    seconds = [value for measured in rounds for value in measured["latencies"]]
    return {
        "http_s": statistics.median(measured["http_s"] for measured in rounds),
        "offline_s": statistics.median(measured["offline_s"] for measured in rounds),
        "requests_per_second": statistics.median(measured["requests"] / measured["http_s"] for measured in rounds),
        "throughput_share": statistics.median(measured["offline_s"] / measured["http_s"] for measured in rounds),
        "latency_median_s": statistics.median(seconds),
        "latency_p99_s": percentile(seconds, 0.99),
        "answers": len(seconds),
        "lost": sum(measured["lost"] for measured in rounds),
        "largest_difference": max(measured["difference"] for measured in rounds),
    }


def one_round(args: argparse.Namespace, url: str, clients: int, number: int) -> dict:
    """The offline scorer, then the server, on as many solutions as the clients ask for; the questions of a round are
    its own, so that no score is known already."""
    from benchmarks.scoring_server import ask
    from benchmarks.step_scoring_worker import Worker, load_solutions

    solutions = load_solutions(args.data, args.items, False)
    count = clients * args.requests_per_client
    asked = [solutions[index % args.items] for index in range(count)]
    work = [(f"({clients}, {number}, {index}) {question}", steps) for index, (question, steps) in enumerate(asked)]
    rows = args.work_dir / "work.json"
    rows.write_text(json.dumps([{"problem": question, "steps": steps} for question, steps in work]))
    load = os.getloadavg()[0]
    worker = Worker("ours", args.work_dir / f"model-{args.model}", rows, count, False, args.threads)
    try:
        offline = worker.measure("whole")
    finally:
        worker.close()
    started = time.perf_counter()
    scores, latencies = asyncio.run(ask(url, work, clients))
    http_s = time.perf_counter() - started
    lost = count - sum(score is not None for score in scores)
    return {
        "http_s": http_s,
        "offline_s": offline["seconds"],
        "requests": count,
        "latencies": latencies,
        "lost": lost,
        "difference": worst_difference(scores, offline["scores"]) if not lost else float("inf"),
        "load_before": load,
    }


def run(args: argparse.Namespace) -> None:
    """All rounds that are not there yet, and the record."""
    from benchmarks.scoring_server import environment, server
    from benchmarks.step_scoring_checkpoints import build_checkpoint

    same = {**identity(args), "requests_per_client": args.requests_per_client}
    kept = args.work_dir / "rounds.json"
    rounds: dict[str, list[dict]] = measured_before(kept, same, args).get("rounds", {})
    model = args.work_dir / f"model-{args.model}"
    build_checkpoint(model, args.seed, args.model)
    os.environ.update(environment(args.threads))
    missing = [
        (number, clients)
        for number in range(args.rounds)
        for clients in args.clients
        if len(rounds.get(str(clients), [])) <= number
    ]
    if missing:
        with server(model, args.work_dir / "server.log") as (url, _):
            for number, clients in missing:
                rounds.setdefault(str(clients), []).append(measured := one_round(args, url, clients, number))
                shown = {name: round(measured[name], 2) for name in ("http_s", "offline_s", "lost")}
                print(f"round {number + 1}, {clients} clients: {shown}", file=sys.stderr, flush=True)
                write_atomically(kept, json.dumps({"identity": same, "rounds": rounds}))
    found = {clients: summary(measured) for clients, measured in rounds.items()}
    flags = f"--data {args.data.name} --items {args.items} --clients {' '.join(map(str, args.clients))}"
    record = {
        "command": f"python -m benchmarks.scoring_load {flags} --rounds {args.rounds}",
        **same,
        "hardware": hardware(),
        "clients": found,
        "rounds": {
            clients: [{name: value for name, value in one.items() if name != "latencies"} for one in measured]
            for clients, measured in rounds.items()
        },
    }
    write_atomically(args.output, json.dumps(record, indent=1) + "\n")
    print(json.dumps(found))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; a user's mistake ends with one line on stderr and status 2."""
    try:
        run(parse_arguments(argv))
    except ValueError as error:
        print(f"scoring_load: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
