"""What `make quickstart COMPARE=1` reaches, seed by seed, and what it costs: `python -m benchmarks.quickstart`.

Each seed is one whole run of `examples.quickstart.run --compare`, which labels, trains a PRM and two policies (guided
by it, and by the best stock method alone) and evaluates them on held-out questions. Kept are the evaluations `before`,
`guided` and `stock`, each measure with its 95% interval over questions; the seconds of each stage; the load before; and
the peak memory: the sum over the run's processes of their proportional set size (memory that several share is divided
among them), looked at every 2 seconds. The summary has each measure's mean over seeds with the 95% interval by
Student's t, and the difference between `guided` and `stock`, seed by seed.

A run that was interrupted goes on where it stopped; its memory is then that of the rest. The last line of output is one
JSON object.
"""

import json
import statistics
import subprocess
import sys
import threading
from pathlib import Path

import psutil

from benchmarks.runs import ROOT, Cells, CommandFailed, add_jobs_flag, main, mean_interval, parser, positive

POLICIES = {"before": "before", "guided": "after", "stock": "stock"}
"""Name here -> name of the evaluation in the run folder."""
MEASURES = ("greedy", "mean_at_8", "best_of_8", "step_accuracy", "mean_tokens")
LOOK_S = 2.0


def memory_of(process: psutil.Process) -> int:
    """Bytes that a process and its descendants hold, shared memory counted once; one that just ended counts nothing."""
    total = 0
    try:
        members = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    for member in members:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def run_seed(folder: Path, seed: int) -> dict:
    """One run to its end, with the peak of its memory. Raises CommandFailed."""
    command = [sys.executable, "-m", "examples.quickstart.run", "--compare", "--seed", str(seed)]
    process = subprocess.Popen([*command, "--output", str(folder)], cwd=ROOT, stdout=sys.stderr)
    peak, ended = 0, threading.Event()

    def look() -> None:
        nonlocal peak
        while not ended.wait(LOOK_S):
            peak = max(peak, memory_of(psutil.Process(process.pid)))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        code = process.wait()
    finally:
        ended.set()
    if code:
        raise CommandFailed(
            f"the quickstart with seed {seed} ended with code {code}; its logs are in {folder / 'logs'}"
        )
    result = json.loads((folder / "result.json").read_text())
    return {
        **{name: figures(result[evaluation]) for name, evaluation in POLICIES.items()},
        "seconds": result["seconds"],
        "peak_memory_mib": round(peak / 2**20),
    }


def figures(evaluation: dict) -> dict:
    """Of each measure the value and its 95% interval over questions; best-of-8 is by the lowest step score."""
    values = evaluation | {"best_of_8": evaluation["best_of_8"]["min"]}
    intervals = evaluation["intervals"] | {"best_of_8": evaluation["intervals"]["best_of_8"]["min"]}
    return {name: {"value": values[name], "interval": intervals[name]} for name in MEASURES} | {
        "prm_auc": evaluation["prm_auc"],
        "habits": evaluation["habits"],
    }


def summarise(cells: dict[str, dict]) -> dict:
    """Means over seeds, the seeds' paired differences, seconds and memory."""
    seeds = list(cells.values())

    def over_seeds(values: list[float]) -> dict:
        mean, low, high = mean_interval(values)
        return {"mean": mean, "interval": [low, high]}

    def column(policy: str, name: str) -> list[float]:
        return [cell[policy][name]["value"] for cell in seeds]

    return {
        **{policy: {name: over_seeds(column(policy, name)) for name in MEASURES} for policy in POLICIES},
        "guided_minus_stock": {
            name: over_seeds([a - b for a, b in zip(column("guided", name), column("stock", name), strict=True)])
            for name in MEASURES
        },
        "seconds": {stage: statistics.fmean(cell["seconds"][stage] for cell in seeds) for stage in seeds[0]["seconds"]},
        "peak_memory_mib": max(cell["peak_memory_mib"] for cell in seeds),
    }


def run(args) -> dict | None:
    """The seeds that the output lacks, and the summary."""
    cells = Cells(args.output, {"policy": "examples/quickstart/policy", "questions": 300, "samples": 8}, args.fresh)
    makers = {f"seed/{seed}": lambda s=seed: run_seed(args.work_dir / f"seed{s}", s) for seed in range(args.seeds)}
    complete = cells.fill(makers, args.seconds, args.jobs)
    summary = summarise(cells.filled) if cells.filled else {}
    cells.write(summary)
    return summary if complete else None


def command() -> int:
    """The command line."""
    flags = parser("quickstart", __doc__)
    flags.add_argument("--seeds", type=int, default=3, help="runs (default 3)")
    add_jobs_flag(flags)
    flags.set_defaults(work_dir=Path("runs/quickstart_seeds"))
    args = flags.parse_args()
    positive(flags, args, "jobs", "seeds")
    return main("quickstart", run, args)


if __name__ == "__main__":
    sys.exit(command())
