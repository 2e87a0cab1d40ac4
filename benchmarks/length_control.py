"""Shorter reasoning at the same accuracy: the length penalties of `--length_penalty.kind` in PPO.

The policy is `policies/short`, trained further on demonstrations that are nearly always careful and full of fillers
(--filler, --quick): right, and needlessly long, because fillers are needed nowhere and careful steps only where an
addition carries, which a policy this small hardly learns to tell. Each penalty is one PPO run (`train_ppo_ray`, the
host's `dr_grpo` or our `step_group` with a PRM) with the same questions and seed; `none` is the same without a penalty.
Settings were chosen on questions of the tune split (--split tune); the policies are then evaluated on those of the test
split, --samples per question.

Reached means: mean tokens at least 30% below those of the policy before training, and mean accuracy not more than one
point below it. `lagrangian` has a target of --target times the tokens before; how far its mean over the last 5 updates
and on held-out questions is from that is reported.

The last line of output is one JSON object: `before` and each penalty with `accuracy`, its interval, `tokens`,
`tokens_change`, `reached`, and for `lagrangian` the `target` and `off_target`.
"""

import statistics
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.demonstration_prms import Labels, train
from benchmarks.figures import Panel, draw
from benchmarks.habit_policies import evaluate, fine_tune
from benchmarks.runs import (
    OURS,
    Cells,
    add_jobs_flag,
    as_flags,
    draw_questions,
    main,
    parser,
    positive,
    ppo_flags,
    train_ppo,
    values,
)
from openrlhf_prm.tasks.arithmetic import HabitMix

MIX = HabitMix(carry=0.18)
LIMIT = 400
# What bears the largest updates on this policy (`sample_efficiency`): at the host's own epsilon and clipping, and the
# learning rate that those bear, 30 updates are not enough to change habits.
ADAM = {"actor.adam.lr": 4.8e-3, "actor.adam.eps": 1e-4, "actor.max_norm": 0.01, "train.batch_size": 128}
OUTCOME = ("--algo.advantage.estimator", "dr_grpo")


def penalty(kind: str, **options: float) -> tuple:
    """Flags of `--length_penalty.*`."""
    return tuple(as_flags({f"length_penalty.{name}": value for name, value in {"kind": kind, **options}.items()}))


def penalties(target: int) -> dict[str, tuple]:
    """Flags of each method; the lengths that some of them need follow from the target."""
    return {
        # Of weight 0: the plugin's curves are logged and nothing else changes.
        "none": penalty("overlong", coef=0.0),
        "kimi": penalty("kimi", coef=0.25),
        "lagrangian": penalty("lagrangian", target=target, rate=0.1, initial=0.3),
        "grpo_lambda": penalty("grpo_lambda", coef=1.0, alpha=0.5, share=0.5),
        "o1_pruner": penalty("o1_pruner", coef=0.5),
        "overlong": penalty("overlong", max_tokens=2 * target, buffer=2 * target - target // 2, coef=0.75),
    }


METHODS = tuple(penalties(1))


def run(args) -> dict | None:
    """The verbose policy, its length, a run for each penalty, the evaluation."""
    settings = {
        "updates": args.updates,
        "quick": args.quick,
        "filler": args.filler,
        "target": args.target,
        "guided": args.guided,
        "split": args.split,
        "questions": args.questions,
        "samples": args.samples,
        "seed": args.seed,
        "adam": ADAM,
    }
    cells, work = Cells(args.output, settings, args.fresh), args.work_dir
    data = draw_questions(work, "train", args.updates * 32, args.seed, MIX)
    asked = draw_questions(work, args.split, args.questions, args.seed, MIX)
    verbose = work / "verbose_policy"

    def test(name: str, policy: Path) -> dict:
        (work / f"eval-{name}").mkdir(parents=True, exist_ok=True)
        result = evaluate({name: policy}, asked, work / f"eval-{name}", args.samples, LIMIT)[name]
        keys = ("greedy", f"mean_at_{args.samples}", "mean_tokens", "mean_steps", "step_accuracy", "truncated")
        figures = {key: result[key] for key in keys if key in result}
        return {**figures, "interval": result["intervals"][f"mean_at_{args.samples}"]}

    def before() -> dict:
        fine_tune(verbose, replace(MIX, quick=args.quick, filler=args.filler), args.tuning, args.seed)
        if args.guided:
            train(work, Labels(600, HabitMix(carry=0.3)), args.seed, epochs=4)
        return test("before", verbose)

    def method(name: str) -> dict:
        target = round(args.target * cells.filled["before"]["mean_tokens"])
        folder = work / name
        more = penalties(target)[name]
        if args.guided:
            guide = ("--prm.model_name_or_path", work / "prm", "--prm.kv_cache_mb", 128)
            guide += ("--process_reward.shaping", "potential", "--algo.advantage.estimator", "step_group")
            guide += ("--algo.advantage.no_std_norm", "--algo.advantage.lambd", 1.0)
        else:
            guide = OUTCOME
        limits = {"data.max_len": LIMIT + 64, "rollout.max_new_tokens": LIMIT}
        flags = ppo_flags(verbose, data, folder, args.seed, **limits, **ADAM)
        scalars, seconds = train_ppo(OURS, [*flags, *guide, *more], folder)
        return {
            "tokens": values(scalars, "rollout/response_length_mean"),
            "accuracy": values(scalars, "process/accuracy"),
            "multiplier": values(scalars, "length_multiplier"),
            "run_s": round(seconds, 1),
            "target": target,
            "test": test(name, folder / "policy"),
        }

    complete = cells.fill({"before": before}, args.seconds)
    if complete:
        complete = cells.fill({name: lambda n=name: method(n) for name in args.methods}, args.seconds, args.jobs)
    summary = summarise(cells.filled, args.samples)
    cells.write(summary)
    if not complete:
        return None
    figure(args.figure, cells.filled)
    return summary


def summarise(cells: dict[str, dict], samples: int) -> dict:
    """Accuracy and tokens on the held-out questions, against the policy before training."""
    if "before" not in cells:
        return {}
    key = f"mean_at_{samples}"
    base = cells["before"]
    summary = {"before": {"accuracy": round(base[key], 4), "interval": base["interval"], "tokens": base["mean_tokens"]}}
    for name in METHODS:
        if name not in cells:
            continue
        test = cells[name]["test"]
        change = test["mean_tokens"] / base["mean_tokens"] - 1
        summary[name] = {
            "accuracy": round(test[key], 4),
            "interval": test["interval"],
            "greedy": round(test["greedy"], 4),
            "tokens": round(test["mean_tokens"], 1),
            "tokens_change": round(change, 4),
            "reached": change <= -0.3 and test[key] >= base[key] - 0.01,
        }
        if name == "lagrangian":
            target = cells[name]["target"]
            summary[name] |= {
                "target": target,
                "off_target": round(test["mean_tokens"] / target - 1, 4),
                "off_target_last_5_updates": round(statistics.fmean(cells[name]["tokens"][-5:]) / target - 1, 4),
            }
    return summary


def figure(path: Path, cells: dict[str, dict]) -> None:
    """Tokens and accuracy over updates."""
    runs = {name: cells[name] for name in METHODS if name in cells}
    levels = {"target of lagrangian": runs["lagrangian"]["target"]} if "lagrangian" in runs else {}

    def curves(key: str) -> dict[str, list[tuple[float, float]]]:
        return {
            name: [(float(update), value) for update, value in enumerate(cell[key], start=1)]
            for name, cell in runs.items()
        }

    panels = [
        Panel("tokens per response", curves("tokens"), levels=levels),
        Panel("accuracy of rollouts", curves("accuracy")),
    ]
    draw(path, panels)


def command() -> int:
    """The command line."""
    flags = parser("length_control", __doc__)
    flags.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="default: all")
    flags.add_argument("--updates", type=int, default=24, help="PPO updates a run (default 24)")
    flags.add_argument("--tuning", type=int, default=250, help="updates that make the policy verbose (default 250)")
    flags.add_argument("--quick", type=float, default=0.12, help="chance of a quick step before (default 0.12)")
    flags.add_argument("--filler", type=float, default=4.0, help="fillers after a step before, on average (default 4)")
    flags.add_argument(
        "--target", type=float, default=0.65, help="lagrangian's, as share of tokens before (default 0.65)"
    )
    flags.add_argument("--guided", action="store_true", help="with a PRM: `potential` and `step_group`")
    flags.add_argument("--split", choices=("tune", "test"), default="test", help="what is evaluated on (default test)")
    flags.add_argument("--questions", type=int, default=400, help="questions to evaluate on (default 400)")
    flags.add_argument("--samples", type=int, default=8, help="responses per question there (default 8)")
    flags.add_argument("--figure", type=Path, default=Path("docs/length_control.svg"))
    flags.add_argument("--seed", type=int, default=0)
    add_jobs_flag(flags)
    args = flags.parse_args()
    positive(flags, args, "jobs", "updates", "tuning", "questions", "samples")
    if not args.filler >= 0:
        flags.error(f"--filler must be at least 0, got {args.filler}")
    for name in ("quick", "target"):
        if not 0 <= getattr(args, name) <= 1:
            flags.error(f"--{name} must lie in 0..1, got {getattr(args, name)}")
    return main("length_control", run, args)


if __name__ == "__main__":
    sys.exit(command())
