"""What is done to a run while it works, and with which line it may or must end by it."""

import random
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import chaotic_reward
import chaotic_servers
from chaotic_run import REWARD_TIMEOUT_S, Run, named_below
from chaotic_servers import Front, Server

DIED = "error: a process of the run died"
LOG_BYTES = 200_000


@dataclass(frozen=True)
class Fault:
    """do: what is done; False where there is nothing to do it to now. line: of the run's end, a part of it; None where
    it must go on. may_go_on: beside ending so. code: the exit code of that end.
    """

    do: Callable[[Run], bool]
    line: str | None = None
    may_go_on: bool = False
    code: int = 1


def killing(name: str, core: bool = False) -> Callable[[Run], bool]:
    """Kills one process of an actor, or the engine's core below it."""

    def kill(run: Run) -> bool:
        processes = run.below(name)
        if core:
            actors = {each.pid for each in processes}
            processes = [each for each in run.below("EngineCore") if each.ppid() in actors]
        if processes:
            random.choice(processes).kill()
        return bool(processes)

    return kill


def kill_driver(run: Run) -> bool:
    run.process.kill()
    return True


def fill_disk(run: Run) -> bool:
    """The trainer may write no file of a checkpoint's size any more; its log goes on."""
    trainers = run.below("PolicyModelActor")
    for trainer in trainers:
        resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, (LOG_BYTES, resource.RLIM_INFINITY))
    return bool(trainers)


def ordering(order: str, folder: Path | None = None) -> Callable[[Run], bool]:
    """Tells the reward function to misbehave once; that of a server, in `folder`."""

    def give(run: Run) -> bool:
        ((folder or run.orders) / order).touch()
        return True

    return give


REWARD_LINES = {
    "nan": "expected a finite number",
    "null": "gave no reward for the prompt",
    "text": "expected a number, or a list",
    "two": "expected a number, or a list",
    "hang": f"no reward came for {REWARD_TIMEOUT_S} s",
    "slow": None,
}

PRM_LINES = {
    **dict.fromkeys(("NaN", "null", "text"), "did not answer with step rewards"),
    "too short": "step rewards must align with steps",
}


@dataclass(frozen=True)
class Setting:
    """One way to run: its flags, what is done to it, the servers that are to be looked after, and those before them."""

    flags: list[object]
    faults: dict[str, Fault]
    servers: list[Server] = field(default_factory=list)
    fronts: list[Front] = field(default_factory=list)
    reward_orders: Path | None = None

    def supervise(self) -> None:
        for server in self.servers:
            server.supervise()

    def forget(self, run: Run) -> None:
        """Takes back what nobody followed before the run ended."""
        for order in (self.reward_orders or run.orders).iterdir():
            order.unlink()
        for front in self.fronts:
            front.order = None


def everywhere(reward_orders: Path | None = None) -> dict[str, Fault]:
    """Faults of any run."""
    return {
        "rollout engine's actor killed": Fault(killing("StepRolloutActor"), DIED, may_go_on=True),
        "rollout engine's core killed": Fault(killing("StepRolloutActor", core=True), DIED, may_go_on=True),
        "policy's actor killed": Fault(killing("PolicyModelActor"), DIED),
        "driver killed": Fault(kill_driver, "", code=-signal.SIGKILL),
        "disk full": Fault(fill_disk, "cannot be written"),
        **{
            f"reward: {order}": Fault(ordering(order, reward_orders), REWARD_LINES[order])
            for order in (*chaotic_reward.LIES, *chaotic_reward.SECONDS)
        },
    }


def with_own_engines(prm: Path) -> Setting:
    """A PRM in an engine of the run's own, and two rollout engines."""
    flags = ["--prm.model_name_or_path", prm, "--prm.kv_cache_mb", 64, "--vllm.num_engines", 2]
    reward = ["--reward.remote_url", chaotic_reward.__file__]
    faults = {
        "PRM engine's actor killed": Fault(killing("PRMWorker")),
        "PRM engine's core killed": Fault(killing("PRMWorker", core=True)),
    }
    return Setting([*flags, *reward], faults | everywhere())


def with_servers(prms: list[Front], rewards: Server, reward_orders: Path) -> Setting:
    """The host's asynchronous mode, a PRM behind two servers, outcome rewards behind one."""
    flags = ["--train.async_enable", "--prm.url", *(front.url for front in prms), "--prm.answer_s", 20]
    reward = ["--reward.remote_url", f"http://127.0.0.1:{rewards.port}"]

    def kill(server: Server, core: bool = False) -> bool:
        processes = named_below(server.process.pid, "EngineCore") if core else [server.process]
        for process in processes:
            process.kill()
        return bool(processes)

    def lie(order: str) -> Callable[[Run], bool]:
        def give(run: Run) -> bool:
            random.choice(prms).order = order
            return True

        return give

    away = "gave no reward for the prompt"
    faults = {
        "PRM server killed": Fault(lambda run: kill(random.choice(prms).server)),
        "PRM server's core killed": Fault(lambda run: kill(random.choice(prms).server, core=True)),
        "reward server killed": Fault(lambda run: kill(rewards), away, may_go_on=True),
        **{f"PRM server: {lie_}": Fault(lie(lie_), PRM_LINES[lie_]) for lie_ in chaotic_servers.LIES},
        **{f"PRM server: {late}": Fault(lie(late)) for late in ("slow", "hang", "500")},
    }
    servers = [*(front.server for front in prms), rewards]
    return Setting([*flags, *reward], faults | everywhere(reward_orders), servers, prms, reward_orders)
