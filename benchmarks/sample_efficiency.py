"""How fast PPO learns: stock OpenRLHF against process rewards and branches, on short and long chains of additions.

Chains have 2-3 (`short`), 3-5 (`middle`) or 6-8 additions (`long`, with named operands). Each has a policy with the
quickstart's habits (`long` that very policy, `short` one that is fine-tuned to have them), which depend on the
situation: quick steps, which forget the carry, are the likelier (70% to 94%) the larger the units digit that is added,
which is where carries are. As 22% of additions carry, most quick steps are right, and an outcome says little about the
one that was not.

  stock   `ppo` (gae with a critic), `rloo`, `group_norm`, by `python -m openrlhf.cli.train_ppo_ray`; `rloo_fast` is
          `rloo` tuned for speed, `ppo_longer` is `ppo` with twice the updates, as tuned for `ppo`
  ours    `prm` (a PRM trained on soft Monte Carlo labels of the policy's own steps as critic: `verified_potential`,
          `step_returns`), `prm_weighed` (the same with negative advantages times 0.1, so that where the policy gets
          worse it does not unlearn all that it did), `prm_mistakes` (`prm_weighed` with a PRM that learned from as
          many solutions again in which a digit was changed, since a policy that is pushed fast comes to make mistakes
          that it did not make before, and a PRM that never saw them leads nowhere then), `prm_fast` (the same, tuned
          for speed), `group_norm_weighed` (the host's estimator with the same weight, to tell what is the PRM's part),
          `vine` (branches in the rollout actor, adaptive K), `tree` (values from what the group's responses share), by
          `openrlhf_prm.cli.train_ppo_ray`

Every method is tuned first over --adam (learning rate, epsilon, norm to which gradients are clipped, optimizer steps an
update), on questions of the tune split, by the mean accuracy over the last third of the updates, `rloo_fast` and
`prm_fast` by that over all of them. The setting whose worse of two seeds is best is taken (cells `tune/...`), since the
fastest may ruin the policy on some seeds; one that is already worse on the first seed is not tried on the second.
Epsilon is tuned because it decides how fast a policy can be pushed: an element's gradient is some 1e-5 here, and at
Adam's default of 1e-8 elements whose gradient is mere noise move as far as the others. With a larger one the step grows
with the gradient, whose norm is 0.003 to 0.2 here, and the host's default clipping to 1 does nothing.

Then --seeds runs on questions of the train split; every rollout has new questions, so its accuracy is that of unseen
ones. After the last update the host evaluates the policy on --questions of the test split, 4 samples each: `accuracy`,
its mean over seeds with the 95% interval by Student's t; `ahead`, the difference from the stock method that is best
there after --updates, with the 95% interval by Welch's t.

Reaching: the first update at which the mean accuracy of 3 updates is at least the best stock method's peak (of its mean
curve over seeds, of --updates); seeds that never get there count as all their updates and are named in `not_reached`.
Tokens are generated ones, branches counted; seconds are the host's timing of updates, without start-up. What the PRM's
labels and training cost once is in `prm_cost`.

The last line of output is one JSON object.
"""

import itertools
import json
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.figures import Panel, draw
from benchmarks.habit_policies import evaluate, fine_tune
from benchmarks.ppo_methods import ADAMS, CHAINS, METHODS, PRMS, STOCKS, Adam, add_adam_flag
from benchmarks.runs import (
    KEYS,
    Cells,
    add_jobs_flag,
    difference_interval,
    draw_questions,
    main,
    mean_interval,
    moving_mean,
    parser,
    positive,
    ppo_flags,
    run_command,
    train_ppo,
    values,
)

WINDOW, SAMPLES = 3, 4
# Responses that are trained on at once: gradients of larger batches are accumulated, which is faster on CPU.
MICRO_BATCH = 32
TUNING_SEEDS = (99, 98)


def tuning_cell(chain: str, method: str, adam: Adam, seed: int) -> str:
    """The name of a cell."""
    return f"tune/{chain}/{method}/{adam}/{seed}"


class Runs:
    """The cells of one command."""

    def __init__(self, args, cells: Cells):
        self.args, self.cells = args, cells

    def policy(self, chain: str) -> Path:
        own, folder = CHAINS[chain], self.args.work_dir / chain / "policy"
        if not own.fine_tuned:
            return own.policy
        mix = replace(own.mix, additions=tuple(sorted({*own.labelled, *own.mix.additions})))
        return fine_tune(folder, mix, self.args.tuning, seed=0, policy=own.policy)

    def before(self, chain: str) -> dict:
        """The policy's accuracy before training."""
        folder = self.args.work_dir / chain
        policies = {"before": self.policy(chain)}
        found = evaluate(policies, self.asked(chain), folder, SAMPLES, CHAINS[chain].limit)["before"]
        return {"test": found[f"mean_at_{SAMPLES}"]}

    def make_prm(self, chain: str, name: str) -> dict:
        """The PRM, and what it cost."""
        policy, folder = self.policy(chain), self.args.work_dir / chain
        mix, file = replace(CHAINS[chain].mix, additions=CHAINS[chain].labelled), folder / f"labels-{name}.jsonl"
        asked = draw_questions(folder / f"labelled-{name}", "train", self.args.labelled, 10_000, mix)
        flags = ["--actor.model_name_or_path", policy, *KEYS, "--data.input", asked, "--data.output", file]
        flags += ["--annotator", "math_shepherd", "--annotation.solutions_per_question", 2]
        flags += ["--annotation.rollouts", 6, "--rollout.max_new_tokens", CHAINS[chain].limit]
        flags += ["--annotation.corrupted_per_question", PRMS[name]]
        seconds = run_command("openrlhf_prm.cli.annotate", flags, folder / f"annotate-{name}.log")
        flags = ["--model.model_name_or_path", policy, "--data.dataset", file, "--ckpt.output_dir", folder / name]
        flags += ["--train.max_epochs", 8, "--train.batch_size", 16, "--train.micro_batch_size", 16]
        flags += ["--adam.lr", 2e-3, "--data.label_kind", "soft"]
        training = run_command("openrlhf_prm.cli.train_prm", flags, folder / f"train-{name}.log")
        records = map(json.loads, file.read_text().splitlines())
        rollouts = sum(sum(record["rollouts"]) - sum(record["endings"]) for record in records)
        return {"label_s": seconds, "train_s": training, "label_rollouts": rollouts}

    def asked(self, chain: str) -> Path:
        """The questions of the test split."""
        return draw_questions(self.args.work_dir / chain, "test", self.args.questions, 0, CHAINS[chain].mix)

    def train(self, chain: str, method: str, seed: int, adam: Adam, split: str) -> dict:
        """One PPO run: its curves, and for the train split its policy's accuracy on the test split."""
        mix, limit = CHAINS[chain].mix, CHAINS[chain].limit
        name = f"{method}-{split}-{seed}-{adam}".replace(":", "-")
        folder = self.args.work_dir / chain / name
        updates = self.args.updates * METHODS[method].times
        data = draw_questions(folder, split, updates * self.args.prompts, seed, mix)
        more, prm = METHODS[method].flags, METHODS[method].prm
        if prm:
            more = ("--prm.model_name_or_path", self.args.work_dir / chain / prm, *more)
        limits = {"rollout.max_new_tokens": limit, "data.max_len": limit + 80}
        limits |= {"actor.adam.lr": adam.lr, "actor.adam.eps": adam.eps, "actor.max_norm": adam.max_norm}
        limits |= {"rollout.batch_size": self.args.prompts, "rollout.micro_batch_size": min(128, 8 * self.args.prompts)}
        batch = 8 * self.args.prompts // adam.steps
        limits |= {"train.batch_size": batch, "train.micro_batch_size": math.gcd(batch, MICRO_BATCH)}
        if split == "train":
            # The host's own evaluation, once, after the last update.
            limits |= {
                "eval.dataset": self.asked(chain),
                "eval.steps": updates,
                "eval.n_samples_per_prompt": SAMPLES,
                "eval.temperature": 1.0,
                "ckpt.best_metric_key": "none",
            }
        flags = ppo_flags(self.policy(chain), data, folder, seed, **limits)
        scalars, seconds = train_ppo(METHODS[method].module, [*flags, *more], folder)
        samples = values(scalars, "rollout/num_samples")
        lengths = values(scalars, "rollout/response_length_mean")
        branches = values(scalars, "vine/branch_tokens") or [0.0] * len(samples)
        figures = {
            "adam": str(adam),
            "accuracy": values(scalars, "process/accuracy") or values(scalars, "rollout/reward_mean"),
            "tokens": [(own + more) * n for own, more, n in zip(lengths, branches, samples, strict=True)],
            "seconds": values(scalars, "timing/step_total"),
            "run_s": round(seconds, 1),
        }
        if split == "train":
            (tag,) = (tag for tag in scalars if tag.startswith("eval/") and tag.endswith("_pass1"))
            figures["test"] = values(scalars, tag)[-1]
        return figures

    def tuned(self, chain: str, method: str, seeds: tuple[int, ...] = TUNING_SEEDS) -> dict[Adam, float]:
        """What was tried with all of these seeds, best first -> the worst seed's mean accuracy over `tuned_for`."""
        name, share, found = METHODS[method].tuned_as or method, METHODS[method].tuned_for, {}
        for adam in self.args.adam:
            cells = [self.cells.filled.get(tuning_cell(chain, name, adam, seed)) for seed in seeds]
            if all(cells):
                ends = (cell["accuracy"][-max(int(len(cell["accuracy"]) * share), 1) :] for cell in cells)
                found[adam] = min(map(statistics.fmean, ends))
        return dict(sorted(found.items(), key=lambda item: item[1], reverse=True))

    def contender(self, chain: str, method: str) -> Adam | None:
        """What is best on the first tuning seed of the settings that might still be the best on all, if any is left."""
        known = self.tuned(chain, method)
        best = max(known.values(), default=-1.0)
        first = self.tuned(chain, method, TUNING_SEEDS[:1])
        return next((adam for adam, late in first.items() if adam not in known and late > best), None)


def run(args) -> dict | None:
    """Prepare, tune, run, summarise."""
    settings = {
        "updates": args.updates,
        "prompts": args.prompts,
        "tuning": args.tuning,
        "labelled": args.labelled,
        "questions": args.questions,
    }
    cells = Cells(args.output, settings, args.fresh)
    runs = Runs(args, cells)
    # Each makes its chain's policy, so that what needs the policy begins after them.
    policies = {f"before/{chain}": lambda c=chain: runs.before(c) for chain in args.chains}
    prms: dict = {}
    for chain in args.chains:
        for prm in dict.fromkeys(METHODS[name].prm for name in args.methods if METHODS[name].prm):
            if not (args.work_dir / chain / prm / "config.json").exists():
                cells.filled.pop(
                    f"{prm}/{chain}", None
                )  # on another machine: the figures came along, the model did not
            prms[f"{prm}/{chain}"] = lambda c=chain, p=prm: runs.make_prm(c, p)
    pairs = [(chain, method) for chain in args.chains for method in args.methods]
    first, *others = TUNING_SEEDS

    def tuning(chain: str, method: str, adams: list[Adam], seeds: list[int]) -> dict:
        method = METHODS[method].tuned_as or method
        return {
            tuning_cell(chain, method, adam, seed): lambda a=adam, s=seed: runs.train(chain, method, s, a, "tune")
            for adam in adams
            for seed in seeds
        }

    def fill(groups: Iterable[dict]) -> bool:
        return cells.fill({name: cell for group in groups for name, cell in group.items()}, args.seconds, args.jobs)

    prepared = fill([policies]) and fill([prms])
    complete = prepared and fill(tuning(chain, name, args.adam, [first]) for chain, name in pairs)
    for pair in pairs:
        while complete and (adam := runs.contender(*pair)):
            complete = fill([tuning(*pair, [adam], others)])
    if complete:
        wanted = {}
        # Seed by seed, so that an unfinished benchmark still compares methods over the same seeds.
        for seed, (chain, method) in itertools.product(range(args.seeds), pairs):
            name, adam = f"{chain}/{method}/{seed}", next(iter(runs.tuned(chain, method)))
            if name in cells.filled and cells.filled[name]["adam"] != str(adam):
                del cells.filled[name]
            wanted[name] = lambda c=chain, m=method, s=seed, a=adam: runs.train(c, m, s, a, "train")
        complete = fill([wanted])
    summary = {chain: summarise(cells.filled, chain) for chain in args.chains}
    cells.write(summary)
    if not complete:
        return None
    figure(args.figure, cells.filled, args.chains)
    return summary


def curves_of(cells: dict[str, dict], chain: str) -> dict[str, list[dict]]:
    """Method -> its runs, seed by seed."""
    found: dict[str, dict[int, dict]] = {}
    for name, cell in cells.items():
        part, *rest = name.split("/")
        if part == chain:
            found.setdefault(rest[0], {})[int(rest[1])] = cell
    return {method: [runs[seed] for seed in sorted(runs)] for method, runs in found.items()}


def mean_curve(runs: list[dict]) -> list[float]:
    """Mean over seeds of the moving mean of accuracy."""
    smooth = [moving_mean(run["accuracy"], WINDOW) for run in runs]
    return [statistics.fmean(column) for column in zip(*smooth, strict=True)]


def reached(run: dict, level: float) -> tuple[int, float, float, bool]:
    """Updates, tokens and seconds until the moving mean of accuracy is at `level`, and whether it ever was."""
    smooth = moving_mean(run["accuracy"], WINDOW)
    at = next((update for update, value in enumerate(smooth, start=1) if value >= level), None)
    count = at or len(smooth)
    return count, sum(run["tokens"][:count]), sum(run["seconds"][:count]), at is not None


def rounded(estimate: Sequence[float | None]) -> list[float | None]:
    """To four places, what is unknown (None) as it is."""
    return [value if value is None else round(value, 4) for value in estimate]


def summarise(cells: dict[str, dict], chain: str) -> dict:
    """Final accuracies with intervals, and what each method needed to reach the best stock method's peak."""
    found = curves_of(cells, chain)
    stocks = {name: max(mean_curve(runs)) for name, runs in found.items() if name in STOCKS}
    if not stocks:
        return {}
    best = max(stocks, key=stocks.__getitem__)
    ends = {name: [run["test"] for run in runs] for name, runs in found.items()}
    best_end = max(stocks, key=lambda name: statistics.fmean(ends[name]))
    summary: dict = {
        "best_stock": best,
        "peak": round(stocks[best], 4),
        "best_stock_at_the_end": best_end,
        "methods": {},
    }
    for name, runs in found.items():
        needs = [reached(run, stocks[best]) for run in runs]
        summary["methods"][name] = {
            "seeds": len(runs),
            "adam": runs[0]["adam"],
            "accuracy": rounded(mean_interval(ends[name])),
            "ahead": rounded(difference_interval(ends[name], ends[best_end])),
            "updates": statistics.fmean(own[0] for own in needs),
            "optimizer_steps": statistics.fmean(own[0] for own in needs) * Adam.read(runs[0]["adam"]).steps,
            "tokens": round(statistics.fmean(own[1] for own in needs)),
            "seconds": round(statistics.fmean(own[2] for own in needs), 1),
            "not_reached": [seed for seed, own in enumerate(needs) if not own[3]],
        }
    summary["before"] = cells[f"before/{chain}"]["test"] if f"before/{chain}" in cells else None
    costs = {prm: cells[f"{prm}/{chain}"] for prm in PRMS if f"{prm}/{chain}" in cells}
    summary["prm_cost"] = {
        prm: {key: made[key] for key in ("label_s", "train_s", "label_rollouts")} for prm, made in costs.items()
    }
    return summary


def figure(path: Path, cells: dict[str, dict], chains: list[str]) -> None:
    """Mean accuracy over updates and over generated tokens, a row for each length of chains."""
    panels = []
    for chain in chains:
        found = curves_of(cells, chain)
        by_update, by_tokens = {}, {}
        for name, runs in found.items():
            curve = mean_curve(runs)
            tokens = [statistics.fmean(column) for column in zip(*(run["tokens"] for run in runs), strict=True)]
            by_update[name] = [(float(update), value) for update, value in enumerate(curve, start=1)]
            by_tokens[name] = [(sum(tokens[: place + 1]) / 1000, value) for place, value in enumerate(curve)]
        panels.append(Panel(f"{chain} chains: accuracy of rollouts (mean of 3 updates)", by_update))
        panels.append(Panel(f"{chain} chains, by generated tokens", by_tokens, x_name="thousand tokens"))
    draw(path, panels)


def command() -> int:
    """The command line."""
    flags = parser("sample_efficiency", __doc__)
    flags.add_argument(
        "--chains", nargs="+", choices=list(CHAINS), default=["short", "long"], help="default: short long"
    )
    compared = [*STOCKS, "prm_mistakes", "prm_fast"]
    flags.add_argument(
        "--methods", nargs="+", choices=list(METHODS), default=compared, help=f"default: {' '.join(compared)}"
    )
    flags.add_argument("--seeds", type=int, default=5, help="seeds per method (default 5)")
    flags.add_argument("--updates", type=int, default=12, help="PPO updates a run (default 12)")
    flags.add_argument("--prompts", type=int, default=16, help="questions an update, 8 samples each (default 16)")
    add_adam_flag(flags, ADAMS)
    flags.add_argument("--tuning", type=int, default=250, help="updates that give the policies their habits")
    flags.add_argument("--labelled", type=int, default=500, help="questions whose steps are labelled for the PRM")
    flags.add_argument("--questions", type=int, default=300, help="questions of the test split (default 300)")
    flags.add_argument("--figure", type=Path, default=Path("docs/sample_efficiency.svg"))
    add_jobs_flag(flags)
    args = flags.parse_args()
    if uneven := [str(adam) for adam in args.adam if 8 * args.prompts % adam.steps]:
        flags.error(f"--adam {uneven[0]}: STEPS must divide the {8 * args.prompts} responses of an update")
    positive(flags, args, "jobs", "seeds", "updates", "prompts", "tuning", "labelled", "questions")
    return main("sample_efficiency", run, args)


if __name__ == "__main__":
    sys.exit(command())
