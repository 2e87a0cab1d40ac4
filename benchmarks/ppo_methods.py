"""What `sample_efficiency` compares: chains of additions, PPO methods, and settings of the optimizer to tune over."""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runs import OURS, POLICY, ROOT, STOCK
from openrlhf_prm.tasks.arithmetic import HabitMix

HABITS = {"quick": 0.7, "quick_per_unit": 0.027, "filler": 0.1, "carry": 0.22}


@dataclass(frozen=True)
class Adam:
    """What is tuned of the actor's optimizer; written LR:EPS:MAX_NORM[:STEPS]. `steps`: optimizer steps an update, 4
    where they are left out.
    """

    lr: float
    eps: float
    max_norm: float
    steps: int = 4

    @classmethod
    def read(cls, text: str) -> "Adam":
        """Raises argparse.ArgumentTypeError where `text` is not three or four numbers above 0."""
        parts = text.split(":")
        try:
            adam = cls(*map(float, parts[:3]), *map(int, parts[3:]))
        except (TypeError, ValueError):
            adam = cls(0.0, 0.0, 0.0)
        if not min(dataclasses.astuple(adam)) > 0:
            raise argparse.ArgumentTypeError(f"must be LR:EPS:MAX_NORM[:STEPS], all above 0, got {text!r}")
        return adam

    def __str__(self) -> str:
        numbers = f"{self.lr:g}:{self.eps:g}:{self.max_norm:g}"
        return numbers if self.steps == 4 else f"{numbers}:{self.steps}"


def add_adam_flag(parser_: argparse.ArgumentParser, default: Sequence[Adam]) -> None:
    """`--adam`: the settings that are tried."""
    parser_.add_argument(
        "--adam",
        type=Adam.read,
        nargs="+",
        metavar="LR:EPS:MAX_NORM[:STEPS]",
        default=default,
        help=f"what is tried (default {' '.join(map(str, default))})",
    )


@dataclass(frozen=True)
class Chain:
    """The policy, its questions, the numbers of additions of those whose steps are labelled, and the token limit.

    Long chains are rarely right before training, so that rollouts from their steps nearly all fail and say little;
    steps of shorter ones look the same. Of shorter ones alone a PRM does not learn to remember an early mistake.
    """

    policy: Path
    mix: HabitMix
    labelled: tuple[int, ...]
    limit: int
    fine_tuned: bool = True


CHAINS = {
    "short": Chain(POLICY, HabitMix(additions=(2, 3), **HABITS), (2, 3), 120),
    "middle": Chain(
        ROOT / "examples/rejection_sampling/policy", HabitMix(additions=(3, 4, 5), **HABITS), (3, 4, 5), 200, False
    ),
    "long": Chain(
        ROOT / "examples/quickstart/policy",
        HabitMix(additions=(6, 7, 8), named=True, **HABITS),
        tuple(range(2, 9)),
        300,
        False,
    ),
}
PRMS = {"prm": 0, "prm_mistakes": 2}
"""PRM -> how many corrupted solutions of each question it learns from, besides two of the policy's own."""


@dataclass(frozen=True)
class Method:
    """A command line of PPO. `times`: how many times --updates it runs; `tuned_as`: whose tuning runs it takes;
    `tuned_for`: the share of a run's updates, counted from its end, whose mean accuracy decides there; `prm`: which of
    `PRMS` it needs.
    """

    module: str
    flags: tuple
    times: int = 1
    tuned_as: str | None = None
    tuned_for: float = 1 / 3
    prm: str | None = None


# Four, two and one optimizer steps an update, each at the learning rate that four bore and at twice that.
ADAMS = [
    *(Adam(lr, 1e-4, 0.01) for lr in (2.4e-3, 4.8e-3)),
    *(Adam(lr, 1e-4, 0.01, steps=2) for lr in (4.8e-3, 9.6e-3)),
    Adam(9.6e-3, 1e-4, 0.01, steps=1),
]
PPO = ("--algo.advantage.estimator", "gae", "--critic.adam.lr", 1e-3)
RLOO = ("--algo.advantage.estimator", "rloo")
AS_CRITIC = (
    *("--prm.kv_cache_mb", 128, "--process_reward.shaping", "verified_potential", "--process_reward.outcome_coef", 0),
    *("--algo.advantage.estimator", "step_returns", "--algo.advantage.lambd", 0.9),
)
WEIGHED = ("--algo.advantage.negative_weight", 0.1)
SKIP = ("--vine.skip_uniform",)
WEIGHED_CRITIC = (*AS_CRITIC, *WEIGHED)
METHODS = {
    "ppo": Method(STOCK, PPO),
    "ppo_longer": Method(STOCK, PPO, times=2, tuned_as="ppo"),
    "rloo": Method(STOCK, RLOO),
    "rloo_fast": Method(STOCK, RLOO, tuned_as="rloo", tuned_for=1.0),
    "group_norm": Method(STOCK, ("--algo.advantage.estimator", "group_norm")),
    "prm": Method(OURS, AS_CRITIC, prm="prm"),
    "prm_weighed": Method(OURS, WEIGHED_CRITIC, prm="prm"),
    "prm_mistakes": Method(OURS, WEIGHED_CRITIC, prm="prm_mistakes"),
    "prm_fast": Method(OURS, WEIGHED_CRITIC, tuned_as="prm_mistakes", tuned_for=1.0, prm="prm_mistakes"),
    "group_norm_weighed": Method(OURS, ("--algo.advantage.estimator", "group_norm", *WEIGHED)),
    "vine": Method(OURS, ("--algo.advantage.estimator", "vine", "--vine.k", 9, "--vine.half_width", 0.285, *SKIP)),
    "tree": Method(OURS, ("--algo.advantage.estimator", "tree")),
}
# What ours are held against: the stock methods that had as many updates.
STOCKS = tuple(name for name, method in METHODS.items() if method.module == STOCK and method.times == 1)
