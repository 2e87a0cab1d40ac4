"""A reward for every turn of an agent, against one for its answer: `python -m benchmarks.calculator_agent`.

The agent, its policy and both methods are `examples.calculator_agent`'s: `turns` places what each turn is paid on that
turn, `outcome` is the host's `group_norm` with 1 for a right answer. Both see the same questions, and after every
update the host measures the policy on --questions held-out ones, --samples conversations each.

Tuning (cells `tune/METHOD/ADAM/SEED`) trains on other questions and measures on the tune split; both methods try the
same --adam on the same two seeds. `outcome` takes the setting whose mean over the last third of the updates is best,
because its peak is the mark to be reached; `turns` the one whose mean over all updates is.

Then --seeds runs a method, measured on the test split: `turns` has --updates, in which it tuned, `outcome` twice as
many, which it needs. `peak` is the highest mean over seeds of `outcome`'s accuracy, a moving mean of 3 updates;
`optimizer_steps` is how many a method needed to get there, each seed for itself, `share` the same as a share of those
at which `outcome` peaks; 95% intervals by Student's t over seeds. Seeds that never get there count as all their updates
and are named in `not_reached`. Learning rates fall to a tenth over a run: a longer run differs from its beginning on.

The last line of output is one JSON object.
"""

import itertools
import statistics
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.figures import Panel, draw
from benchmarks.ppo_methods import Adam, add_adam_flag
from benchmarks.runs import (
    Cells,
    add_jobs_flag,
    draw_questions,
    made_with,
    main,
    mean_interval,
    moving_mean,
    parser,
    positive,
    run_command,
    train_ppo,
    values,
)
from benchmarks.sample_efficiency import TUNING_SEEDS, WINDOW, mean_curve, rounded
from examples.calculator_agent.run import METHODS, ROLLOUT_QUESTIONS, SAMPLES, UPDATES, ppo_flags
from examples.calculator_agent.task import MIX

TUNED_FOR = {"turns": 1.0, "outcome": 1 / 3}
"""The share of a run's updates, counted from its end, whose mean accuracy decides between settings."""
MEASURED = {"turns": 1, "outcome": 2}
"""How many times --updates a measured run has."""
ADAMS = [Adam(lr, 1e-4, 0.01) for lr in (6e-4, 1.2e-3, 2.4e-3, 4.8e-3)]


def make_policy(folder: Path) -> Path:
    """The policy of all runs."""
    policy = folder / "policy"
    if not made_with(policy, {"seed": 0}):
        run_command("examples.calculator_agent.make_policy", ["--output", policy], folder / "policy.log")
    return policy


def train(args: Namespace, method: str, adam: Adam, seed: int, split: str, updates: int) -> dict:
    """One PPO run, its policy measured on questions of `split` after every update."""
    folder = args.work_dir / f"{split}-{method}-{adam}-{seed}".replace(":", "-")
    asked = draw_questions(args.work_dir, split, args.questions, 0, MIX)
    data = draw_questions(folder, "train", updates * ROLLOUT_QUESTIONS, seed, MIX)
    flags = [
        *ppo_flags(
            method, make_policy(args.work_dir), data, folder, seed, adam.lr, adam.steps, adam.eps, adam.max_norm
        ),
        *("--eval.dataset", asked, "--eval.steps", 1, "--eval.n_samples_per_prompt", args.samples),
        *("--eval.temperature", 1.0, "--ckpt.best_metric_key", "none"),
    ]
    scalars, seconds = train_ppo(METHODS[method].module, flags, folder)
    (tag,) = (tag for tag in scalars if tag.startswith("eval/") and tag.endswith("_pass1"))
    return {
        "adam": str(adam),
        "accuracy": rounded(values(scalars, tag)),
        "seconds": rounded(values(scalars, "timing/step_total")),
        "run_s": round(seconds, 1),
    }


def tuned(cells: dict[str, dict], method: str, adams: Sequence[Adam]) -> dict[Adam, float]:
    """Every setting -> mean accuracy over its tuning runs, best first."""
    found = {}
    for adam in adams:
        curves = [cells[f"tune/{method}/{adam}/{seed}"]["accuracy"] for seed in TUNING_SEEDS]
        ends = [curve[-max(round(len(curve) * TUNED_FOR[method]), 1) :] for curve in curves]
        found[adam] = statistics.fmean(map(statistics.fmean, ends))
    return dict(sorted(found.items(), key=lambda item: item[1], reverse=True))


def updates_until(run: dict, level: float) -> int | None:
    """The first update whose moving mean of accuracy is at `level`."""
    smooth = moving_mean(run["accuracy"], WINDOW)
    return next((update for update, value in enumerate(smooth, start=1) if value >= level), None)


def summarise(cells: dict[str, dict], seeds: int) -> dict:
    """What each method needed to be where `outcome` peaks, over the seeds that both have."""
    common = [n for n in range(seeds) if all(f"{method}/{n}" in cells for method in METHODS)]
    if not common:
        return {}
    runs = {method: [cells[f"{method}/{seed}"] for seed in common] for method in METHODS}
    mark = mean_curve(runs["outcome"])
    peak = max(mark)
    peak_at = mark.index(peak) + 1
    steps = {method: Adam.read(runs[method][0]["adam"]).steps for method in METHODS}
    summary: dict = {"seeds": len(common), "peak": round(peak, 4), "peak_optimizer_steps": peak_at * steps["outcome"]}
    for method in METHODS:
        reached = [updates_until(run, peak) for run in runs[method]]
        needed = [(at or len(run["accuracy"])) * steps[method] for at, run in zip(reached, runs[method], strict=True)]
        summary[method] = {
            "adam": runs[method][0]["adam"],
            "accuracy": rounded(mean_interval([run["accuracy"][-1] for run in runs[method]])),
            "optimizer_steps": rounded(mean_interval(needed)),
            "share": rounded(mean_interval([count / (peak_at * steps["outcome"]) for count in needed])),
            "not_reached": [seed for seed, at in zip(common, reached, strict=True) if at is None],
            "curve": rounded(mean_curve(runs[method])),
        }
    return summary


def run(args: Namespace) -> dict | None:
    """Tune, run, summarise."""
    settings = {name: getattr(args, name) for name in ("updates", "questions", "samples")}
    cells = Cells(args.output, settings, args.fresh)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    make_policy(args.work_dir)
    trials = {
        f"tune/{method}/{adam}/{seed}": partial(train, args, method, adam, seed, "tune", args.updates)
        for seed, adam, method in itertools.product(TUNING_SEEDS, args.adam, METHODS)
    }
    complete = cells.fill(trials, args.seconds, args.jobs)
    if complete:
        chosen = {method: next(iter(tuned(cells.filled, method, args.adam))) for method in METHODS}
        wanted = {}
        for seed in range(args.seeds):
            for method, adam in chosen.items():
                name = f"{method}/{seed}"
                if name in cells.filled and cells.filled[name]["adam"] != str(adam):
                    del cells.filled[name]
                wanted[name] = partial(train, args, method, adam, seed, "test", args.updates * MEASURED[method])
        complete = cells.fill(wanted, args.seconds, args.jobs)
    summary = summarise(cells.filled, args.seeds)
    cells.write(summary)
    if not complete:
        return None
    figure(args.figure, summary)
    return summary


def figure(path: Path, summary: dict) -> None:
    """Both methods' mean accuracy by optimizer steps, and the level to be reached."""
    curves = {}
    for method in METHODS:
        steps = Adam.read(summary[method]["adam"]).steps
        curves[method] = [(steps * update, value) for update, value in enumerate(summary[method]["curve"], start=1)]
    title = f"right answers on held-out questions, {summary['seeds']} seeds"
    panel = Panel(title, curves, x_name="optimizer steps", levels={"outcome's peak": summary["peak"]})
    draw(path, [panel], columns=1)


def command() -> int:
    """The command line."""
    flags = parser("calculator_agent", __doc__)
    flags.add_argument("--seeds", type=int, default=5, help="seeds per method (default 5)")
    flags.add_argument("--updates", type=int, default=UPDATES, help=f"PPO updates a run (default {UPDATES})")
    flags.add_argument("--questions", type=int, default=100, help="held-out questions (default 100)")
    flags.add_argument("--samples", type=int, default=2, help="conversations about each (default 2)")
    add_adam_flag(flags, ADAMS)
    flags.add_argument("--figure", type=Path, default=Path("docs/calculator_agent.svg"))
    add_jobs_flag(flags)
    flags.set_defaults(work_dir=Path("runs/calculator_agent_seeds"))  # the example's own run has runs/calculator_agent
    args = flags.parse_args()
    responses = ROLLOUT_QUESTIONS * SAMPLES
    if uneven := [str(adam) for adam in args.adam if responses % adam.steps]:
        flags.error(f"--adam {uneven[0]}: STEPS must divide the {responses} responses of an update")
    positive(flags, args, "jobs", "seeds", "updates", "questions", "samples")
    return main("calculator_agent", run, args)


if __name__ == "__main__":
    sys.exit(command())
