"""`make chaos`: PPO under random faults, which has to end as it would have without them.

Processes of a run are killed while it works, its disk is full, its rewards lie or hang; where that ends it, the same
command goes on. Once with two rollout engines and a PRM in an engine of the run's own, once asynchronously with a PRM
behind a server. At the end a table says what was done and what came of it. The ledger must balance, every figure be
finite, and the accuracy lie where those of undisturbed runs with other seeds do.
"""

import argparse
import contextlib
import json
import math
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chaotic_run import FAULTS, OF_ENGINES, OF_SERVERS, Run, served
from ppo_runs import POLICY, logged_steps

from benchmarks.overhead import as_prm
from openrlhf_prm.data.ledger import balances
from openrlhf_prm.tasks.arithmetic import questions

UPDATES_PER_EPISODE = 3
MOST_STARTS = 200


@dataclass
class Outcome:
    """How often each fault was done, how often the run ended by it, and how often it was started."""

    done: Counter = field(default_factory=Counter)
    ended: Counter = field(default_factory=Counter)
    starts: int = 0


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def disturbed(run: Run, faults: dict, minutes: float, pause_s: float) -> Outcome:
    """Runs to the end, with faults for so many minutes. Raises SystemExit where it ends as no fault explains."""
    outcome, waiting, last = Outcome(), [], None
    until = time.monotonic() + 60 * minutes
    while True:
        run.start()
        outcome.starts += 1
        seen, since = run.updates(), time.monotonic()
        while run.process.poll() is None:
            time.sleep(1)
            if run.server is not None:
                run.server.supervise()
            if run.updates() == seen or time.monotonic() - since < pause_s or time.monotonic() > until:
                continue
            waiting = waiting or random.sample(sorted(faults), len(faults))
            last = waiting.pop()
            if faults[last](run):
                outcome.done[last] += 1
                say(f"after {run.updates()} updates: {last}")
            seen, since = run.updates(), time.monotonic()
        for order in run.orders.iterdir():
            order.unlink()
        if run.process.returncode == 0:
            return outcome
        outcome.ended[last or "by itself"] += 1
        why = [line for line in run.text().splitlines() if " error: " in line][-1:]
        say(f"ended with {run.process.returncode}: {''.join(why)[-300:]}")
        if last is None or run.process.returncode not in (1, -signal.SIGKILL) or outcome.starts > MOST_STARTS:
            raise SystemExit(f"an end that no fault explains; the log is {run.log}")
        last = None


def accuracy(run: Run) -> float:
    """Of the last updates; every figure that was logged must be finite."""
    steps = logged_steps(run.text())
    assert all(math.isfinite(value) for status in steps for value in status.values())
    assert "': nan" not in run.text() and "': inf" not in run.text()
    last = [status["accuracy"] for status in steps[-UPDATES_PER_EPISODE:]]
    return sum(last) / len(last)


def table(outcome: Outcome, faults: dict) -> str:
    rows = [f"{'fault':32}{'done':>6}{'ended the run':>15}"]
    rows += [f"{name:32}{outcome.done[name]:>6}{outcome.ended[name]:>15}" for name in faults]
    return "\n".join(rows)


def chaos(folder: Path, way: str, minutes: float, args: argparse.Namespace) -> list[str]:
    """One run under faults, beside undisturbed ones; prints its table and returns what is wrong."""
    with contextlib.ExitStack() as stack:
        if way == "sync":
            server, faults = None, OF_ENGINES | FAULTS
            flags = ["--prm.model_name_or_path", folder / "prm", "--vllm.num_engines", 2]
        else:
            server, faults = stack.enter_context(served(folder / "prm", folder / "server.log")), OF_SERVERS | FAULTS
            flags = ["--prm.url", server.url, "--train.async_enable"]
        quiet = []
        for seed in range(1, args.undisturbed + 1):
            run = Run(folder / f"{way}-quiet{seed}", seed, args.episodes, flags)
            disturbed(run, faults, 0, args.pause)
            quiet.append(accuracy(run))
        run = Run(folder / way, 0, args.episodes, flags)
        run.server = server
        outcome = disturbed(run, faults, minutes, args.pause)
    print(f"\n{way}\n{table(outcome, faults)}\nstarted {outcome.starts} times")
    if server is not None:
        print(f"the PRM's server ended with {server.codes}")
    wrong = []
    for balance in balances(run.folder / "ckpt"):
        print(balance)
        wrong += balance.faults
    reached = accuracy(run)
    print(f"accuracy {reached:.3f}, undisturbed {', '.join(f'{value:.3f}' for value in quiet) or 'not run'}")
    scatter = max(0.1, max(quiet) - min(quiet)) if quiet else math.inf
    if quiet and not min(quiet) - scatter <= reached <= max(quiet) + scatter:
        wrong.append("the accuracy is not that of undisturbed runs")
    return [f"{way}: {each}" for each in wrong]


def main() -> int:
    parser = argparse.ArgumentParser(description="PPO under random faults.")
    parser.add_argument("--minutes", type=float, default=20.0, help="for how long faults happen, in all")
    parser.add_argument("--ways", nargs="+", choices=("sync", "async"), default=["sync", "async"])
    parser.add_argument("--episodes", type=int, default=8, help=f"of {UPDATES_PER_EPISODE} updates each")
    parser.add_argument("--pause", type=float, default=10.0, help="seconds between a fault, or a start, and the next")
    parser.add_argument("--undisturbed", type=int, default=2, help="runs without faults to compare with, each way")
    parser.add_argument("--seed", type=int, default=0, help="of the faults' order")
    args = parser.parse_args()
    random.seed(args.seed)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    say(f"logs in {folder}")
    rows = [json.dumps({"question": text, "label": label}) for text, label in questions("train", 24, seed=0)]
    (folder / "questions.jsonl").write_text("\n".join(rows) + "\n")
    as_prm(POLICY, folder / "prm")
    wrong = [each for way in args.ways for each in chaos(folder, way, args.minutes / len(args.ways), args)]
    print("\n".join(wrong) or "everything is accounted for")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
