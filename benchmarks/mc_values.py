"""Values of the states between steps: naive VinePPO against the branches of `openrlhf_prm.ppo.rollout`.

Solutions of `policies/short` are sampled once. Truth is the mean outcome of `--truth` continuations per state.

  naive   K fresh continuations of every state of every solution, the question included, each a request of its own on an
          engine without prefix caching (VinePPO as published, arXiv:2410.01679: K = 9)
  ours    `BranchSampler` on an engine that has just written the solutions: a state that several solutions pass is
          sampled once, the question's value is the mean outcome of the other solutions, groups with one outcome are
          skipped (their states get that outcome as value), K is adaptive, and optionally a PRM is the control variate

How many branches ours takes is chosen on questions of the tune split: the cheapest of SETTINGS whose mean absolute
error there is at most MARGIN times naive's, because the best of several looks better than it is. It is then measured
on the test split. Errors are means over all states of all solutions, so a state that many solutions pass counts as
often. Tokens are generated plus prefilled ones (with the control variate also those that the PRM computed); the
solutions themselves, which both need, are not counted.

The last line of output is one JSON object: `naive_tokens, tokens, naive_s, s, naive_mae, mae`, means over
--repeats, with their ratios and the chosen setting.
"""

import statistics
import sys
from pathlib import Path

from benchmarks.demonstration_prms import Labels, train
from benchmarks.runs import Cells, main, parser, positive
from benchmarks.state_values import MIX, Bench, Setting
from openrlhf_prm.cluster.accelerator import prepare_environment
from vllm_prm.engines import heed_cache_size

# half_width 0.285 stops after three equal outcomes, 0.25 after four, 0.2 after six.
PLAIN = [
    *(Setting(k) for k in (4, 6, 9)),
    *(Setting(k, k_min, width) for k, k_min, width in ((12, 3, 0.285), (12, 4, 0.25), (18, 6, 0.2))),
]
WITH_PRM = [Setting(3, control_variate=True), Setting(9, 3, 0.285, control_variate=True)]
SETTINGS = PLAIN + WITH_PRM
MARGIN = 0.9


def run(args) -> dict | None:
    """Tune, choose, measure."""
    if args.prm is not None and not (args.prm / "config.json").is_file():
        raise ValueError(f"--prm: there is no checkpoint in {args.prm}")
    if args.prm is None and not args.no_prm:
        args.prm = train(args.work_dir, Labels(300, MIX), args.seed, epochs=3)
    prepare_environment()
    heed_cache_size({"kv_cache_memory_bytes"})
    settings = {
        "questions": args.questions,
        "truth": args.truth,
        "tune_truth": args.tune_truth,
        "repeats": args.repeats,
        "seed": args.seed,
        "prm": not args.no_prm,
    }
    cells, bench = Cells(args.output, settings, args.fresh), Bench(args)
    try:
        return measure(args, cells, bench)
    finally:
        bench.stop()


def measure(args, cells: Cells, bench: Bench) -> dict | None:
    """The cells in order; None where `--seconds` ended it early."""

    def truth(split: str, count: int):
        def cell(question: int) -> dict:
            return {"states": len(bench.truth(split, question, count))}

        return {f"{split} truth {index}": lambda i=index: cell(i) for index in range(args.questions)}

    choices = PLAIN + ([] if args.no_prm else WITH_PRM)
    tune = truth("tune", args.tune_truth)
    tune |= {f"tune naive {n}": lambda: bench.naive("tune") for n in range(args.repeats)}
    for setting in choices:
        for n in range(args.repeats):
            # The first repeat is measured with c = 0 and teaches the control variate for the others.
            def cell(s=setting, n=n) -> dict:
                learned = cells.filled.get(f"tune {s.name} {n - 1}", {}).get("coefficient", (0.0, 0.0))
                return bench.ours("tune", s, learned)

            tune[f"tune {setting.name} {n}"] = cell
    if not cells.fill(tune, args.seconds):
        return None

    def mean(prefix: str, name: str, first: int = 0) -> float:
        return statistics.fmean(cells.filled[f"{prefix} {n}"][name] for n in range(first, args.repeats))

    def first(setting: Setting) -> int:
        return 1 if setting.control_variate and args.repeats > 1 else 0

    goal = MARGIN * mean("tune naive", "mae")
    fine = [s for s in choices if mean(f"tune {s.name}", "mae", first(s)) <= goal]
    if not fine:
        raise ValueError(
            f"no setting of ours reaches {MARGIN} of naive's error on the tune split; SETTINGS needs larger ones"
        )
    chosen = min(fine, key=lambda s: mean(f"tune {s.name}", "tokens", first(s)))
    learned = cells.filled[f"tune {chosen.name} {args.repeats - 1}"].get("coefficient", (0.0, 0.0))
    test = truth("test", args.truth)
    for n in range(args.repeats):
        test[f"test naive {n}"] = lambda: bench.naive("test")
    for n in range(args.repeats):
        test[f"test ours {n}"] = lambda: bench.ours("test", chosen, learned)
    if not cells.fill(test, args.seconds):
        return None
    summary = {
        **{f"naive_{name}": mean("test naive", name) for name in ("tokens", "s", "mae")},
        **{name: mean("test ours", name) for name in ("tokens", "s", "mae")},
    }
    summary["tokens_ratio"] = round(summary["tokens"] / summary["naive_tokens"], 4)
    summary["s_ratio"] = round(summary["s"] / summary["naive_s"], 4)
    summary["setting"] = chosen.name
    cells.write(
        summary
        | {
            "tune": {
                name: {figure: round(mean(f"tune {name}", figure, start), 5) for figure in ("tokens", "s", "mae")}
                for name, start in [("naive", 0), *((s.name, first(s)) for s in choices)]
            }
        }
    )
    return summary


def command() -> int:
    """The command line."""
    flags = parser("mc_values", __doc__)
    flags.add_argument(
        "--questions", type=int, default=12, help="questions of each split, 8 solutions each (default 12)"
    )
    flags.add_argument("--truth", type=int, default=256, help="continuations per state for the truth (default 256)")
    flags.add_argument("--tune-truth", type=int, default=96, help="the same on the tune split (default 96)")
    flags.add_argument("--repeats", type=int, default=3, help="measurements of each method (default 3)")
    flags.add_argument("--prm", type=Path, help="PRM of the control variate; default: one trained on demonstrations")
    flags.add_argument("--no-prm", action="store_true", help="do not try the control variate")
    flags.add_argument("--seed", type=int, default=0)
    args = flags.parse_args()
    positive(flags, args, "questions", "truth", "tune_truth", "repeats")
    return main("mc_values", run, args)


if __name__ == "__main__":
    sys.exit(command())
