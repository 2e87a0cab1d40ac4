"""A PPO run of small models, what can be done to it while it works, and the server of its PRM."""

import contextlib
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
from chaotic_reward import ORDERS
from ppo_runs import host_flags
from servers import end_group, held_port

from openrlhf_prm.cluster.accelerator import cpu_environment, cpu_host_flags

HERE = Path(__file__).parent


class Run:
    """The command, and its processes while it works. It saves a checkpoint after every update and keeps one."""

    def __init__(self, folder: Path, seed: int, episodes: int, flags: Sequence[object]):
        self.folder, self.log = folder, folder / "log"
        self.orders = folder / "orders"
        self.orders.mkdir(parents=True)
        self.server: Server | None = None
        self.flags = [
            *host_flags(folder.parent),
            *("--reward.remote_url", HERE / "chaotic_reward.py", "--reward.timeout", 30),
            *("--prm.score_range", "probability", "--algo.advantage.estimator", "step_group"),
            *("--train.num_episodes", episodes, "--train.seed", seed),
            *("--ckpt.output_dir", folder / "out", "--ckpt.path", folder / "ckpt", "--ckpt.load_enable"),
            *("--ckpt.save_steps", 1, "--ckpt.max_num", 1),
            *flags,
        ]
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "openrlhf_prm.cli.train_ppo_ray", *self.flags, *cpu_host_flags()]
        environment = {**os.environ, **cpu_environment(), "CHAOS_ORDERS": str(self.orders)}
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"  # cores of their own, as on GPUs
        with self.log.open("a") as sink:
            self.process = subprocess.Popen(
                list(map(str, command)), env=environment, stdout=sink, stderr=sink, start_new_session=True
            )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def updates(self) -> int:
        """How often an update was finished, those that were done again included."""
        return self.text().count("openrlhf_prm: update ")

    def below(self, name: str) -> list[psutil.Process]:
        """Its processes with a name in their command, as Ray and vLLM set it."""
        return named_below(self.process.pid, name)


class Server:
    """`vllm-prm serve` on a port of its own, started again as often as it ends, as a supervisor does."""

    def __init__(self, model: Path, log: Path, port: int):
        self.url, self.log = f"http://127.0.0.1:{port}", log
        self.command = [sys.executable, "-m", "vllm_prm.serve", "serve", model, "--port", port, "--enforce-eager"]
        self.codes: list[int] = []
        self.start()

    def start(self) -> None:
        environment = {**os.environ, **cpu_environment(), "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
        with self.log.open("a") as sink:
            self.process = subprocess.Popen(
                list(map(str, self.command)), env=environment, stdout=sink, stderr=sink, start_new_session=True
            )

    def supervise(self) -> None:
        """Starts it again where it ended."""
        if self.process.poll() is not None:
            self.codes.append(self.process.returncode)
            self.start()


@contextlib.contextmanager
def served(model: Path, log: Path) -> Iterator[Server]:
    """A server of a PRM while the block runs."""
    with held_port() as port:
        server = Server(model, log, port)
        try:
            yield server
        finally:
            end_group(server.process)


def named_below(pid: int, name: str) -> list[psutil.Process]:
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if name in " ".join(each.cmdline()[:1]):
                    found.append(each)
    return found


def killing(name: str, core: bool = False) -> Callable[[Run], bool]:
    """Kills one process of an actor, or of the engine's core below it; False where there is none now."""

    def kill(run: Run) -> bool:
        processes = run.below(name)
        if core:
            actors = {each.pid for each in processes}
            processes = [each for each in run.below("EngineCore") if each.ppid() in actors]
        if processes:
            random.choice(processes).kill()
        return bool(processes)

    return kill


def lying(order: str) -> Callable[[Run], bool]:
    def give(run: Run) -> bool:
        (run.orders / order).touch()
        return True

    return give


def kill_driver(run: Run) -> bool:
    run.process.kill()
    return True


def kill_server(run: Run) -> bool:
    run.server.process.kill()
    return True


def kill_core_of_server(run: Run) -> bool:
    cores = named_below(run.server.process.pid, "EngineCore")
    for core in cores:
        core.kill()
    return bool(cores)


def fill_disk(run: Run) -> bool:
    """The trainer may write no file of more than a few bytes any more."""
    trainers = run.below("PolicyModelActor")
    for trainer in trainers:
        resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    return bool(trainers)


OF_ENGINES = {
    "PRM engine's actor killed": killing("PRMWorker"),
    "PRM engine's core killed": killing("PRMWorker", core=True),
}
OF_SERVERS = {"PRM server killed": kill_server, "PRM server's core killed": kill_core_of_server}
FAULTS: dict[str, Callable[[Run], bool]] = {
    "rollout engine's actor killed": killing("StepRolloutActor"),
    "rollout engine's core killed": killing("StepRolloutActor", core=True),
    "policy's actor killed": killing("PolicyModelActor"),
    "driver killed": kill_driver,
    "disk full": fill_disk,
    **{f"reward {order}": lying(order) for order in ORDERS},
}
