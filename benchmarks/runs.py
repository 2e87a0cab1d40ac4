"""What the benchmarks of training share: PPO commands and their curves, cells that resume, records of results."""

import argparse
import json
import math
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from benchmarks.step_scoring import hardware
from openrlhf_prm.cluster.accelerator import (
    ROLLOUT_KV_CACHE_MB,
    cpu_environment,
    cpu_host_environment,
    cpu_host_flags,
    on_cpu,
)
from openrlhf_prm.data.questions import KEYS, write_question_file
from openrlhf_prm.evaluation.versions import versions
from openrlhf_prm.report.run_folder import Series, read_scalars
from openrlhf_prm.tasks.arithmetic import HabitMix, questions
from vllm_prm.durable_file import refuse_other_settings, write_atomically

ROOT = Path(__file__).parents[1]
POLICY = ROOT / "benchmarks" / "policies" / "short"
REWARD = ROOT / "openrlhf_prm" / "answers" / "outcome.py"
STOCK, OURS = "openrlhf.cli.train_ppo_ray", "openrlhf_prm.cli.train_ppo_ray"


class CommandFailed(RuntimeError):
    """A command ended with an error; the message holds the end of its log."""


def run_command(module: str, flags: Sequence[object], log: Path) -> float:
    """Runs `python -m module` with what it prints in `log`; seconds it took. Raises CommandFailed.

    The host picks a free port long before it binds it; where another process took it meanwhile, once more.
    """
    command = [sys.executable, "-m", module, *map(str, flags)]
    environment = {**(cpu_environment() if on_cpu() else {}), ROLLOUT_KV_CACHE_MB: "128", **os.environ}
    if module == STOCK and on_cpu():
        environment |= cpu_host_environment()
    log.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(2):
        started = time.monotonic()
        with log.open("wb") as sink:
            sink.write(f"$ {shlex.join(command)}\n".encode())
            sink.flush()
            process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)
            try:
                code = process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if code == 0:
            return time.monotonic() - started
        text = log.read_bytes()[-60_000:].decode(errors="replace")
        if attempt or "EADDRINUSE" not in text:
            raise CommandFailed(f"{text[-3000:]}\n{module} ended with code {code}; the whole log is in {log}")
    raise AssertionError


def made_with(folder: Path, settings: dict) -> bool:
    """Whether the model in `folder` was made with these settings; if not, its folder is emptied for a new one."""
    note = folder.with_name(f"{folder.name}.made_with.json")
    settings = json.loads(json.dumps(settings, default=str))
    if (folder / "config.json").exists() and note.exists() and json.loads(note.read_text()) == settings:
        return True
    shutil.rmtree(folder, ignore_errors=True)
    write_atomically(note, json.dumps(settings))
    return False


def draw_questions(folder: Path, split: str, count: int, seed: int, mix: HabitMix) -> Path:
    """A file of questions of one split of the arithmetic task."""
    return write_question_file(folder / f"{split}.jsonl", questions(split, count, seed, mix))


def as_flags(options: dict[str, object]) -> list[object]:
    """Names and values as a command line has them: `--name`, value, ..."""
    return [item for name, value in options.items() for item in (f"--{name}", value)]


def ppo_flags(policy: Path, data: Path, folder: Path, seed: int, **more: object) -> list[object]:
    """What all PPO runs share: one policy, one rollout engine, the outcome reward; `more` overrides by flag."""
    flags = {
        "actor.model_name_or_path": policy,
        "reward.remote_url": REWARD,
        "data.prompt_dataset": data,
        "data.max_len": 264,
        "rollout.max_new_tokens": 200,
        "rollout.batch_size": 32,
        "rollout.n_samples_per_prompt": 8,
        "rollout.micro_batch_size": 128,
        "train.batch_size": 64,
        "train.micro_batch_size": 64,
        "actor.adam.lr": 3e-4,
        "algo.kl.init_coef": 0,
        "algo.advantage.is_correction_level": "token",
        **{f"{part}.num_gpus_per_node": 1 for part in ("ref", "reward", "critic", "actor")},
        "vllm.num_engines": 1,
        "ckpt.output_dir": folder / "policy",
        "ckpt.path": folder / "ckpt",
        "logger.tensorboard_dir": folder / "tensorboard",
        "train.seed": seed,
        **more,
    }
    return [*as_flags(flags), *KEYS, "--vllm.enable_prefix_caching", *(cpu_host_flags() if on_cpu() else [])]


def train_ppo(module: str, flags: Sequence[object], folder: Path) -> tuple[dict[str, Series], float]:
    """A PPO run; what it logged by tag (without the host's `train/`), and the seconds it took. Run again from the start
    where it was interrupted.
    """
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    seconds = run_command(module, flags, folder / "log.txt")
    scalars = {tag.removeprefix("train/"): series for tag, series in read_scalars(folder / "tensorboard").items()}
    if not scalars:
        raise CommandFailed(f"{folder / 'tensorboard'} has no curves; the log is in {folder / 'log.txt'}")
    return scalars, seconds


def values(scalars: dict[str, Series], tag: str) -> list[float]:
    """The values of one curve in order; [] where it was not logged."""
    return [value for _, value in scalars.get(tag, [])]


def moving_mean(numbers: Sequence[float], window: int) -> list[float]:
    """Means over the last `window` values, over fewer at the start."""
    return [statistics.fmean(numbers[max(0, end - window) : end]) for end in range(1, len(numbers) + 1)]


def mean_interval(numbers: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean and its 95% interval by Student's t; with one number the interval is unknown (None)."""
    mean = statistics.fmean(numbers)
    if len(numbers) < 2:
        return mean, None, None
    from scipy.stats import t

    half = t.ppf(0.975, len(numbers) - 1) * statistics.stdev(numbers) / math.sqrt(len(numbers))
    return mean, mean - half, mean + half


def difference_interval(numbers: Sequence[float], others: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Difference of the means and its 95% interval by Welch's t; unknown (None) where either has fewer than two numbers
    or neither varies.
    """
    difference = statistics.fmean(numbers) - statistics.fmean(others)
    if min(len(numbers), len(others)) < 2 or len({*numbers}) == len({*others}) == 1:
        return difference, None, None
    from scipy.stats import ttest_ind

    interval = ttest_ind(numbers, others, equal_var=False).confidence_interval(0.95)
    return difference, float(interval.low), float(interval.high)


class Cells:
    """Results of a benchmark's cells in one JSON file, kept as they are made, so that an interrupted run goes on.

    The file is both what is published and what is resumed from, and is replaced as a whole for each cell: there are few
    of them, minutes apart, some are made anew or taken out, and on another machine the published file is all there is.

    `settings` is what two runs must share for their cells to stand together. Raises ValueError where the file holds
    cells of other settings, naming each difference.
    """

    def __init__(self, output: Path, settings: dict, fresh: bool = False):
        self.started = time.monotonic()
        self.output, self.settings = output, json.loads(json.dumps(settings))
        self.filled: dict[str, dict] = {}
        if output.exists() and not fresh:
            try:
                before = json.loads(output.read_text())
                known, cells = before["settings"], before["cells"]
            except (json.JSONDecodeError, KeyError, TypeError):
                raise ValueError(f"--output {output} holds something else; name another, or add --fresh") from None
            refuse_other_settings(f"--output {output}", known, self.settings, "name another, or add --fresh")
            self.filled = cells

    def fill(self, cells: dict[str, Callable[[], dict]], seconds: float = math.inf, jobs: int = 1) -> bool:
        """Makes the cells that are not there, `jobs` at a time; no further one is begun `seconds` after this object
        was made. Whether all are there. After an error no further one is begun, and it is raised when those in hand
        are done.
        """
        lock, stop = threading.Lock(), threading.Event()

        def fill_one(name: str, make: Callable[[], dict]) -> None:
            if stop.is_set() or time.monotonic() - self.started > seconds:
                return
            print(f"{name} ...", file=sys.stderr, flush=True)
            load = os.getloadavg()[0]
            try:
                made = {**make(), "load_before": round(load, 1)}
            except BaseException:
                stop.set()
                raise
            with lock:
                self.filled[name] = made
                self.write({})

        with ThreadPoolExecutor(jobs) as pool:
            begun = [pool.submit(fill_one, name, make) for name, make in cells.items() if name not in self.filled]
            try:
                for future in begun:
                    future.result()
            except BaseException:  # Ctrl-C too: what is in hand gets the signal itself
                stop.set()
                raise
        return all(name in self.filled for name in cells)

    def write(self, summary: dict) -> None:
        """The file: command, versions, hardware, settings, summary, cells."""
        record = {
            "command": shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
            "settings": self.settings,
            "versions": versions(),
            "hardware": hardware(),
            "summary": summary,
            "cells": self.filled,
        }
        write_atomically(self.output, json.dumps(record, indent=1) + "\n")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog.split('.')[-1]}: error: {message} (--help lists the flags)\n")


def parser(name: str, description: str, folder: bool = True) -> Parser:
    """A benchmark's parser with the flags that all of them have; without `folder` it keeps nothing but its results."""
    result = Parser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--output", type=Path, default=Path(f"benchmarks/results/{name}.json"))
    if folder:
        result.add_argument("--work-dir", type=Path, default=Path(f"runs/{name}"), help="models, data, logs")
    result.add_argument("--fresh", action="store_true", help="measure again what --output already holds")
    result.add_argument(
        "--seconds", type=float, default=math.inf, help="begin nothing new after so long; the next run goes on"
    )
    return result


def add_jobs_flag(parser_: argparse.ArgumentParser) -> None:
    """`--jobs`, for benchmarks whose figures are not seconds."""
    parser_.add_argument("--jobs", type=int, default=1, help="runs at a time, some 5 GiB and a core each (default 1)")


def main(name: str, run: Callable[[argparse.Namespace], dict | None], args: argparse.Namespace) -> int:
    """Runs a benchmark and prints its last line; a user's mistake is one line on stderr and status 2."""
    try:
        summary = run(args)
    except ValueError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 130
    if summary is None:
        print(f"{name}: more cells are left; the same command goes on", file=sys.stderr)
        return 0
    print(json.dumps(summary))
    return 0


def positive(parser_: argparse.ArgumentParser, args: argparse.Namespace, *names: str) -> None:
    """Ends with an error where one of the numbers is below 1."""
    for name in names:
        if getattr(args, name) < 1:
            parser_.error(f"--{name.replace('_', '-')} must be 1 or more, got {getattr(args, name)}")
