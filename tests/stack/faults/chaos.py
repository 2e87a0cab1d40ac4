"""`make chaos`: PPO under random faults, which has to end as it would have without them.

Processes of a run are killed while it works, its disk is full, its rewards and step scores lie or hang. What ends it
has to say so in the line that belongs to it; the same command then goes on. Two ways: `sync`, with two rollout engines
and a PRM in an engine of the run's own; `async`, the host's asynchronous mode, with a PRM behind two servers and a
reward server. At the end a table says what was done and what came of it. The ledger must balance, every figure be
finite, nothing outlive its run, and the accuracy lie where those of undisturbed runs do.

`--work` keeps runs: undisturbed ones that it has are not run again, and the result holds every way that it has. The
last line of output is one JSON object.
"""

import argparse
import contextlib
import json
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import reaper
from chaotic_faults import Fault, Setting, with_own_engines, with_servers
from chaotic_run import Leftovers, Run
from chaotic_servers import fronts, reward_server
from ppo_runs import POLICY

from benchmarks.overhead import as_prm
from benchmarks.step_scoring import hardware
from openrlhf_prm.data.ledger import balances
from openrlhf_prm.evaluation.versions import versions
from openrlhf_prm.tasks.arithmetic import questions
from vllm_prm.durable_file import write_atomically

ROOT = Path(__file__).parents[3]
UPDATES_PER_EPISODE = 3
MEASURED = 2 * UPDATES_PER_EPISODE
UNDISTURBED_S = 180
"""Where no undisturbed run says how long one takes."""
GONE_S = 90.0
"""So long nothing of a run outlives it: Ray's agents ask a controller that is gone for a minute."""
NOT_A_NUMBER = ("are not finite for the prompt", "the loss is nan", "are NaN or infinite", "': nan", "': inf")


@dataclass
class Outcome:
    """How often each fault was done, how often the run went on or ended by it, and what went wrong."""

    done: Counter = field(default_factory=Counter)
    went_on: Counter = field(default_factory=Counter)
    ended: Counter = field(default_factory=Counter)
    starts: int = 0
    wrong: list[str] = field(default_factory=list)

    def book_end(self, name: str | None, fault, code: int, line: str) -> None:
        """The run ended by itself, or by the fault `name`."""
        self.ended[name or "no fault"] += 1
        if name is None or fault.line is None:
            self.wrong.append(f"{name or 'no fault'} ended the run: {line}")
        elif code != fault.code or fault.line not in line:
            self.wrong.append(f"{name} ended the run with {code} and another line: {line}")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def disturbed(
    run: Run, setting: Setting, time_for: Callable[[Fault, int], bool], hard: float
) -> tuple[Outcome, Leftovers]:
    """Runs to the end, with a fault whenever an update was done, of those for which there is time after so many
    updates. At the time `hard` it is ended.
    """
    outcome, leftovers, waiting = Outcome(), Leftovers(), []
    while True:
        said = len(run.text())
        run.start()
        outcome.starts += 1
        name, fault, wanted = None, None, run.updates() + 1
        while run.process.poll() is None:
            time.sleep(1)
            setting.supervise()
            leftovers.note(run)
            leftovers.look()
            if time.monotonic() > hard:
                outcome.wrong.append(f"no end in time, after {run.updates()} updates and {name or 'no fault'}")
                run.process.kill()
                run.process.wait()
                leftovers.ended()
                return outcome, leftovers
            if run.updates() < wanted or (fault is not None and fault.line is not None and not fault.may_go_on):
                continue
            if fault is not None:
                outcome.went_on[name] += 1
                name = fault = None
            waiting = waiting or random.sample(sorted(setting.faults), len(setting.faults))
            done = len(run.figures())
            tried = next((each for each in waiting if time_for(setting.faults[each], done)), None)
            if tried is not None:
                waiting.remove(tried)
                if setting.faults[tried].do(run):
                    name, fault, wanted = tried, setting.faults[tried], run.updates() + 2
                    outcome.done[name] += 1
                    say(f"after {run.updates()} updates: {name}")
        leftovers.ended()
        setting.forget(run)
        if run.process.returncode == 0:
            if name is not None:
                say(f"{name} came too late")
                outcome.done[name] -= 1
            return outcome, leftovers
        lines = [line for line in run.text()[said:].splitlines() if " error: " in line] or [""]
        say(f"ended with {run.process.returncode}: {lines[-1][:300]}")
        outcome.book_end(name, fault, run.process.returncode, lines[-1][:300])
        if outcome.ended["no fault"] > 2:
            raise SystemExit(f"it ends without a fault; the log is {run.log}")


def accuracy(run: Run) -> float:
    """Of the last updates."""
    last = sorted(run.figures().items())[-MEASURED:]
    return sum(figures["accuracy"] for _, figures in last) / max(len(last), 1)


def undisturbed(folder: Path, setting: Setting, seed: int, args: argparse.Namespace) -> dict:
    """Accuracy and seconds of a run without faults, done before or now."""
    result = folder / "result.json"
    if not result.exists():
        run, began = Run(folder, seed, args.episodes, setting.flags), time.monotonic()
        outcome, _ = disturbed(run, setting, lambda fault, done: False, began + 60 * args.minutes)
        if outcome.starts != 1 or outcome.wrong:
            raise SystemExit(f"an undisturbed run ended; the log is {run.log}")
        reached = {"accuracy": round(accuracy(run), 4), "seconds": round(time.monotonic() - began)}
        write_atomically(result, json.dumps(reached))
        say(f"undisturbed, seed {seed}: {reached}")
    return json.loads(result.read_text())


@contextlib.contextmanager
def setting_of(way: str, folder: Path) -> Iterator[Setting]:
    """The way to run, with its servers while the block runs."""
    if way == "sync":
        yield with_own_engines(folder / "prm")
        return
    with fronts(folder / "prm", folder, 2) as prms, reward_server(folder) as rewards:
        yield with_servers(prms, rewards, folder / "reward_orders")


def chaos(way: str, folder: Path, args: argparse.Namespace) -> dict:
    """One run under faults, beside undisturbed ones."""
    began = time.monotonic()
    with setting_of(way, folder) as setting:
        quiet = [undisturbed(folder / f"{way}-quiet{seed}", setting, seed, args) for seed in range(args.undisturbed)]
        whole = min((each["seconds"] for each in quiet), default=UNDISTURBED_S)
        updates, end = UPDATES_PER_EPISODE * args.episodes, began + 60 * args.minutes / len(args.ways)

        def time_for(fault: Fault, done: int) -> bool:
            """Whether there is, with the start that it may cost, beside the rest of the run."""
            start = 0 if fault.line is None else whole / 3
            return time.monotonic() + start + whole * (1 - done / updates) < end

        run = Run(folder / f"{way}-{time.strftime('%H%M%S')}", 0, args.episodes, setting.flags)
        outcome, leftovers = disturbed(run, setting, time_for, end + 2 * whole)
    wrong = outcome.wrong
    ledger = balances(run.folder / "ckpt")
    wrong += [fault for balance in ledger for fault in balance.faults]
    wrong += [f"the log holds {text!r}" for text in NOT_A_NUMBER if text in run.text()]
    wrong += [
        f"update {step}: {name} is {value}"
        for step, figures in run.figures().items()
        for name, value in figures.items()
        if not math.isfinite(value)
    ]
    missing = set(range(1, updates + 1)) ^ set(run.figures())
    wrong += [f"updates {sorted(missing)} are missing, or too many"] * bool(missing)
    leftovers.wait(GONE_S)
    wrong += [f"of an ended run {kind} live on: {each}" for each, (_, kind) in leftovers.waiting.items()]
    # Both ways end at the same accuracy, so that their undisturbed runs tell together how far seeds lie apart.
    others = [json.loads(path.read_text())["accuracy"] for path in sorted(folder.glob("*-quiet*/result.json"))]
    reached = accuracy(run)
    scatter = max(0.1, max(others) - min(others)) if others else math.inf
    if others and not min(others) - scatter <= reached <= max(others) + scatter:
        wrong.append("the accuracy is not that of undisturbed runs")
    return {
        "faults": {
            name: {"done": outcome.done[name], "went_on": outcome.went_on[name], "ended": outcome.ended[name]}
            for name in setting.faults
        },
        "starts": outcome.starts,
        "updates": len(run.figures()),
        "done_again": run.updates() - len(run.figures()),
        "accuracy": round(reached, 4),
        "undisturbed": others,
        "ledger": list(map(str, ledger)),
        "outlived_s": leftovers.longest,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "wrong": wrong,
    }


def show(way: str, cell: dict) -> None:
    print(f"\n{way + ': fault':34}{'done':>6}{'went on':>10}{'ended in its line':>20}")
    for name, counts in cell["faults"].items():
        print(f"{name:34}{counts['done']:>6}{counts['went_on']:>10}{counts['ended']:>20}")
    print(f"{cell['updates']} updates in {cell['starts']} starts, {cell['done_again']} of them done again")
    print(*cell["ledger"], sep="\n")
    print(f"accuracy {cell['accuracy']:.3f}, undisturbed {cell['undisturbed'] or 'not run'}")
    print(f"longest that something outlived its run, in seconds: {cell['outlived_s']}")
    print(*cell["wrong"] or ["nothing is missing"], sep="\n", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="PPO under random faults.")
    parser.add_argument("--minutes", type=float, default=20.0, help="for all ways together, undisturbed runs included")
    parser.add_argument("--ways", nargs="+", choices=("sync", "async"), default=["sync", "async"])
    parser.add_argument("--episodes", type=int, default=10, help=f"of {UPDATES_PER_EPISODE} updates each")
    parser.add_argument("--undisturbed", type=int, default=2, help="runs without faults to compare with, each way")
    parser.add_argument("--seed", type=int, default=0, help="of the faults' order")
    parser.add_argument("--work", type=Path, help="folder of runs, which is gone on from; default a new one")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "chaos.json")
    args = parser.parse_args()
    random.seed(args.seed)
    reaper.start()  # nothing that it starts outlives it, however it ends
    folder = args.work or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    say(f"logs in {folder}")
    rows = [json.dumps({"question": text, "label": label}) for text, label in questions("train", 24, seed=0)]
    (folder / "questions.jsonl").write_text("\n".join(rows) + "\n")
    as_prm(POLICY, folder / "prm")
    for way in args.ways:
        cell = chaos(way, folder, args)
        write_atomically(folder / f"{way}.json", json.dumps(cell))
        show(way, cell)
    files = [path for path in map(folder.joinpath, ("sync.json", "async.json")) if path.exists()]
    result = {
        "command": f"make chaos MINUTES={args.minutes:g}",
        "settings": {name: getattr(args, name) for name in ("minutes", "episodes", "undisturbed", "seed")},
        "versions": versions(),
        "hardware": hardware(),
        "ways": {path.stem: json.loads(path.read_text()) for path in files},
    }
    write_atomically(args.output, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    return 1 if any(cell["wrong"] for cell in result["ways"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
