"""A PPO run of small models, and the processes that it leaves when it ends."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from ppo_runs import host_flags, logged_steps

from openrlhf_prm.cluster.accelerator import ROLLOUT_KV_CACHE_MB, cpu_environment, cpu_host_flags

HERE = Path(__file__).parent
UPDATE = re.compile(r"Global step (\d+):")
REWARD_TIMEOUT_S = 30


class Run:
    """The command, and its processes while it works. It saves a checkpoint after every update and keeps one."""

    def __init__(self, folder: Path, seed: int, episodes: int, flags: Sequence[object]):
        self.folder, self.log, self.orders = folder, folder / "log", folder / "orders"
        self.orders.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen | None = None
        self.flags = [
            *host_flags(folder.parent),
            # A policy that learns: the quickstart's optimizer. Its PRM is no judge, so that it counts little.
            *("--actor.adam.lr", 2.4e-3, "--actor.adam.eps", 1e-4, "--actor.max_norm", 0.01),
            *("--rollout.n_samples_per_prompt", 8, "--rollout.micro_batch_size", 64),
            *("--train.batch_size", 32, "--train.micro_batch_size", 32),
            *("--reward.timeout", REWARD_TIMEOUT_S, "--prm.score_range", "probability"),
            *("--algo.advantage.estimator", "step_group", "--process_reward.coef", 0.02),
            *("--train.num_episodes", episodes, "--train.seed", seed),
            *("--ckpt.output_dir", folder / "out", "--ckpt.path", folder / "ckpt", "--ckpt.load_enable"),
            *("--ckpt.save_steps", 1, "--ckpt.max_num", 1),
            *flags,
        ]

    def start(self) -> None:
        command = [sys.executable, "-m", "openrlhf_prm.cli.train_ppo_ray", *self.flags, *cpu_host_flags()]
        environment = {**os.environ, **cpu_environment(), "CHAOS_ORDERS": str(self.orders)}
        environment |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
            ROLLOUT_KV_CACHE_MB: "128",
        }  # cores of their own, as on GPUs
        with self.log.open("a") as sink:
            self.process = subprocess.Popen(
                list(map(str, command)), env=environment, stdout=sink, stderr=sink, start_new_session=True
            )

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def updates(self) -> int:
        """How often an update was finished, those that were done again included."""
        return len(UPDATE.findall(self.text()))

    def figures(self) -> dict[int, dict[str, float]]:
        """What was logged of each update, of one that was done again the last time."""
        text = self.text()
        return dict(zip(map(int, UPDATE.findall(text)), logged_steps(text), strict=True))

    def below(self, name: str) -> list[psutil.Process]:
        """Its processes with a name in their command, as Ray and vLLM set it."""
        return named_below(self.process.pid, name)


def named_below(pid: int, name: str) -> list[psutil.Process]:
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if name in " ".join(each.cmdline()[:1]):
                    found.append(each)
    return found


class Leftovers:
    """What of a run outlives its driver, and for how long."""

    def __init__(self) -> None:
        self.of_run: dict[psutil.Process, str] = {}
        self.waiting: dict[psutil.Process, tuple[float, str]] = {}
        self.longest: dict[str, float] = {}

    def note(self, run: Run) -> None:
        """Remembers the processes that the run has now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in psutil.Process(run.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    self.of_run[each] = _kind(" ".join(each.cmdline()))

    def ended(self) -> None:
        """The driver is gone."""
        self.waiting |= {each: (time.monotonic(), kind) for each, kind in self.of_run.items()}
        self.of_run = {}

    def look(self) -> None:
        """Notes which of them are gone meanwhile."""
        for each, (since, kind) in list(self.waiting.items()):
            lived = time.monotonic() - since
            if not _lives(each):
                del self.waiting[each]
            self.longest[kind] = max(self.longest.get(kind, 0.0), round(lived, 1))

    def wait(self, limit_s: float) -> None:
        """Until all of them are gone, or for so long."""
        deadline = time.monotonic() + limit_s
        while self.waiting and time.monotonic() < deadline:
            self.look()
            time.sleep(1)


def _kind(command: str) -> str:
    if "EngineCore" in command or "spawn_main" in command:
        return "engine cores"
    return "actors" if command.startswith("ray::") and "Agent" not in command else "Ray's own"


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
