"""Bias and variance of every advantage estimator, exactly: `python -m benchmarks.credit`.

On decision processes small enough to enumerate (`benchmarks.decision_processes`) the expected gradient of an estimator
is a sum over all groups of responses, each with its probability:

    E[g] = sum_groups P(group) * 1/G sum_i sum_t A_it * d log pi(token t of response i)

with the advantages A computed by the project's own code: ours as they stand, the host's through its experience maker.
The true gradient is that of the expected reward: of outcome plus process rewards for estimators that read these (of
right responses alone where they read verdicts), else of the outcome. References of log-ratios choose evenly. `bias` is
the largest difference of any parameter, `variance` the trace of g's covariance against that of the host's `rloo` on the
same rewards (for step rewards with `--process_reward.baseline_of returns`). A batch is one
group. Values of states are exact where an estimator takes them, so the noise of branches is not in it. KL, clipping and
the loss's mean over tokens are left out. A change of an estimator's code asks for --fresh.
"""

import argparse
import math
import sys
from functools import cache, partial

from benchmarks.decision_processes import PROCESSES, responses
from benchmarks.gradients import Row, figures, hosts, leave_one_out, ours
from benchmarks.runs import Cells, main, parser
from openrlhf_prm.advantages import ADVANTAGE_ESTIMATORS
from openrlhf_prm.advantages.estimator import EstimatorNeed
from openrlhf_prm.advantages.host_baselines import HOST_BASELINES

MOST_GROUPS = 10_000
OPTIONS: dict[str, tuple[dict, ...]] = {
    "step_group": ({}, {"std_norm": False}, {"std_norm": False, "baseline": "others"}),
    "step_returns": ({}, {"lambd": 0.9}),
    "min_form_rloo": ({}, {"std_norm": False}, {"std_norm": False, "baseline": "response"}),
    "prime": (
        *({}, {"std_norm": False}, {"std_norm": False, "baseline": "code"}),
        {"std_norm": False, "baseline": "response"},
        {"std_norm": False, "baseline": "response", "return_norm": True},
    ),
    "papo": ({}, {"std_norm": False}, {"std_norm": False, "baseline": "response"}),
    "spro": (
        *({}, {"std_norm": False, "baseline": "others"}),
        {"std_norm": False, "baseline": "others", "beta": 0.0},
    ),
    "tree": ({},),
    "forked_tree": ({"branching": "2x2"}, *({"branching": "2x2", "baseline": of} for of in ("spo_tree", "treerl"))),
    "vine": ({}, {"std_norm": False}),
    "spo": ({}, {"std_norm": False}, {"std_norm": False, "mask": False}),
}
"""Estimator -> its options, of which each is a row; every one has a row without bias."""


def rows() -> list[Row]:
    """Every estimator, ours and the host's, as published and in its unbiased form."""
    table = []
    for name, kind in ADVANTAGE_ESTIMATORS.items():
        for options in OPTIONS[name]:
            estimator = kind(**options)
            reads_steps = EstimatorNeed.STEP_REWARDS in estimator.needs
            shown = ", ".join(f"{option} {value}" for option, value in options.items())
            right = EstimatorNeed.VERDICTS in estimator.needs
            factors = estimator.factors if EstimatorNeed.FORKS in estimator.needs else ()
            table.append(
                Row(f"{name} {shown}".strip(), estimator.unbiased, reads_steps, ours(estimator), right, factors)
            )
    for name, baseline in HOST_BASELINES.items():
        table.append(Row(f"{name}, outcome alone", baseline.unbiased, False, hosts(name, reads_steps=False)))
        for of in ("steps", "returns"):
            flags = ("--process_reward.baseline_of", of)
            unbiased = baseline.unbiased and of == "returns"
            table.append(Row(f"{name}, baseline_of {of}", unbiased, True, hosts(name, *flags, reads_steps=True)))
    return table


@cache
def _rival(reads_steps: bool, process: str, group_size: int) -> float:
    """Variance of the host's `rloo`, with step rewards against the mean of the others' returns."""
    flags = ("--process_reward.baseline_of", "returns") if reads_steps else ()
    rival = Row("", True, reads_steps, hosts("rloo", *flags, reads_steps=reads_steps))
    return figures(rival, PROCESSES[process], group_size).variance


def measured(row: Row, group_size: int) -> dict:
    """Of each process bias and variance, the latter against `rloo`'s. A tree that forks has a group of its own size."""
    result: dict = {"unbiased": row.unbiased}
    for name, process in PROCESSES.items():
        found = figures(row, process, group_size)
        if row.factors:
            rival = Row("", True, False, leave_one_out)
            against = figures(rival, process, math.prod(row.factors)).variance
        else:
            against = _rival(row.reads_steps, name, group_size)
        result[name] = {"bias": round(found.bias, 6), "variance": round(found.variance / against, 4)}
    return result


def tree_by_group_size() -> dict:
    """Variance of `tree` against that of `rloo` by the number of responses, as far as groups can be enumerated."""
    tree, rival = (Row("", True, False, made) for made in (ours(ADVANTAGE_ESTIMATORS["tree"]()), leave_one_out))
    result: dict = {}
    for name, process in PROCESSES.items():
        largest = int(math.log(MOST_GROUPS, len(responses(process))))
        result[name] = {
            str(size): round(figures(tree, process, size).variance / figures(rival, process, size).variance, 3)
            for size in range(2, largest + 1)
        }
    return result


def run(args: argparse.Namespace) -> dict | None:
    """All rows for all sizes, printed as tables."""
    cells = Cells(args.output, {}, args.fresh)
    table = rows()
    wanted = {
        f"groups of {size}/{row.name}": partial(measured, row, size) for size in args.group_sizes for row in table
    }
    complete = cells.fill({**wanted, "tree by group size": tree_by_group_size}, args.seconds)
    cells.write({})
    for size in args.group_sizes:
        print(f"{f'groups of {size}':<62} unbiased  " + "  ".join(f"{name:>22}" for name in PROCESSES))
        for row in table:
            of_row = cells.filled.get(f"groups of {size}/{row.name}")
            if of_row is not None:
                shown = (f"bias {of_row[name]['bias']:6.3f} var {of_row[name]['variance']:5.2f}" for name in PROCESSES)
                print(f"{row.name:<62} {'yes' if row.unbiased else 'no':<8}  {'  '.join(shown)}")
    return {"rows": len(wanted)} if complete else None


def command() -> int:
    """The command line."""
    flags = parser("credit", __doc__, folder=False)
    flags.add_argument(
        "--group_sizes", type=int, nargs="+", default=[2, 3], help="responses per question (default 2 and 3)"
    )
    args = flags.parse_args()
    if min(args.group_sizes) < 2:
        flags.error(f"--group_sizes must be 2 or more, got {min(args.group_sizes)}")
    return main("credit", run, args)


if __name__ == "__main__":
    sys.exit(command())
