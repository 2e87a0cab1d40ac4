"""Values of states from branches: how many to sample, and what they tell with a PRM's help.

A branch is a fresh continuation from the state before a step; its outcome is what a response would get, 1 for a right
answer and 0 for a wrong one or none, as one that is cut mostly has. Branches are never trained on. Shapes: K branches
and N probes of one state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import comb

from openrlhf_prm.measures.intervals import wilson_interval
from openrlhf_prm.options import Options, option, option_fields


@dataclass(frozen=True, kw_only=True)
class VineOptions(Options):
    """How states are valued, `--vine.<field>`.

    `k_min` branches are sampled first and as many again until the 95% Wilson interval of their mean is at most
    +-`half_width`, or `k` are there. Early stopping favours extreme means, so the value is not the mean of what was
    sampled but `value`, which is unbiased.
    """

    values: str = option(
        "rollouts",
        "where values come from: branches, or the PRM's score of the step before",
        choices=("rollouts", "prm"),
    )
    k: int = option(9, "branches per state, at most", least=1)
    k_min: int = option(3, "branches that are sampled at a time", least=1, read_with="half_width")
    half_width: float = option(0.0, "precision of a value at which sampling stops; 0: always k branches", least=0)
    max_new_tokens: int = option(0, "tokens of a branch at most; 0: what its response may still have had", least=0)
    skip_uniform: bool = option(
        False,
        "no branches in groups whose outcomes all agree: cheaper, and biased, because steps before the last lose "
        "credit in as many groups as that are",
    )
    control_variate: bool = option(False, "the PRM makes branch values less noisy, without biasing them")
    probes: int = option(
        16, "one-step continuations per state that the PRM scores", least=1, read_with="control_variate"
    )
    probe_tokens: int = option(64, "tokens of a probe at most", least=1, read_with="control_variate")

    def unread(self, prefix: str) -> dict[str, str]:
        if self.values == "rollouts":
            return super().unread(prefix)
        others = (field.name for field in option_fields(type(self)) if field.name != "values")
        return dict.fromkeys(others, f"--{prefix}.values rollouts")

    def next_round(self, outcomes: Sequence[float]) -> int:
        """How many branches to sample next, 0 when the outcomes so far are enough.

        Outcomes other than 0 and 1 have no Wilson interval: then always up to k.
        """
        if not outcomes:
            return self.k if not self.half_width else min(self.k_min, self.k)
        if set(outcomes) <= {0.0, 1.0} and not self.goes_on(int(sum(outcomes)), len(outcomes)):
            return 0
        return max(min(self.k_min, self.k - len(outcomes)), 0)

    def value(self, outcomes: Sequence[float]) -> float:
        """An unbiased estimate of a state's value from its branches, in the order in which they were sampled.

        The first outcome alone is unbiased whatever stops the sampling. This is its expectation, given that the
        sampling stopped after n outcomes of which s were right: of the orders in which that can happen, all equally
        likely, the share that begins with a right one (Girshick, Mosteller and Savage 1946). Where nothing could stop
        the sampling early, and for outcomes other than 0 and 1, that is the mean, s / n. Raises ZeroDivisionError for
        a state without branches.
        """
        if not self.half_width or not set(outcomes) <= {0.0, 1.0}:
            return sum(outcomes) / len(outcomes)
        orders, begin_right = _orders(self, len(outcomes))
        right = int(sum(outcomes))
        # A state that had no room for branches has k outcomes 0, more than sampling would have come to.
        return begin_right[right] / orders[right] if orders[right] else sum(outcomes) / len(outcomes)

    def goes_on(self, right: int, sampled: int) -> bool:
        """Whether more branches are sampled after so many, of which so many were right."""
        low, high = wilson_interval(right, sampled)
        return sampled < self.k and (high - low) / 2 > self.half_width


@cache
def _orders(options: VineOptions, count: int) -> tuple[list[int], list[int]]:
    """In how many orders sampling comes to `count` outcomes of which s are right, and in how many of these the first is
    right: a list over s each.
    """
    orders, begin_right, sampled = [1], [0], 0
    while sampled < count:
        further = min(options.k_min, options.k - sampled)
        going = [s for s in range(sampled + 1) if sampled == 0 or options.goes_on(s, sampled)]
        new, new_right = ([0] * (sampled + further + 1) for _ in range(2))
        for s in going:
            for more in range(further + 1):
                new[s + more] += orders[s] * comb(further, more)
                first = comb(further - 1, more - 1) if more else 0
                new_right[s + more] += begin_right[s] * comb(further, more) if sampled else first
        orders, begin_right, sampled = new, new_right, sampled + further
    return orders, begin_right


@dataclass(frozen=True)
class Branches:
    """What was sampled from one state.

    outcomes: (K,). scores: (K,) PRM scores of the state one step into each branch, and probes: (N,) the same for
    continuations sampled for one step only; both empty without the control variate. tokens: how many were generated.
    fresh: False where another response of the rollout met the same state first and the branches are its.
    """

    outcomes: tuple[float, ...]
    scores: tuple[float, ...] = ()
    probes: tuple[float, ...] = ()
    tokens: int = 0
    fresh: bool = True

    def __post_init__(self):
        if self.scores and len(self.scores) != len(self.outcomes):
            raise ValueError(f"branch scores must align: got {len(self.scores)}, expected {len(self.outcomes)}")


class ControlVariate:
    """The PRM as control variate of branch outcomes: unbiased whatever the PRM says, and less noisy if it is right.

    V = mean_K(R_i - c q_i) + c mean_{K+N}(q), where R_i is the outcome of branch i, q_i the PRM's score one step into
    it, and the last mean runs over the branches and the N probes, which end after that step and so cost a fraction of
    a branch. Both means of q have the same expectation, so any c chosen beforehand leaves V unbiased; its variance is
    least at c = cov(R, q) / var(q), which is estimated from the states of *earlier* rollouts (pooled within states)
    and kept in checkpoints. Then var(V) = var(R) ((1 - rho^2) / K + rho^2 / (K + N)) for the correlation rho of R and
    q. Before the first rollout c is 0: the plain mean. Double sampling with regression, Cochran, Sampling Techniques,
    chapter 12. Where sampling may stop early the mean of R is `VineOptions.value`, and the means of q are over the
    branches sampled first, whose number no outcome decides, and the probes.
    """

    def __init__(self, options: VineOptions | None = None):
        self.options = options or VineOptions()
        self.covariance = 0.0
        self.variance = 0.0

    @property
    def coefficient(self) -> float:
        return self.covariance / self.variance if self.variance > 0 else 0.0

    def value(self, branches: Branches) -> float:
        """V of one state. Raises ZeroDivisionError for a state without branches."""
        value = self.options.value(branches.outcomes)
        first = branches.scores[: self.options.k_min] if self.options.half_width else branches.scores
        if not first:
            return value
        both = [*first, *branches.probes]
        return value + self.coefficient * (sum(both) / len(both) - sum(first) / len(first))

    def update(self, states: Sequence[Branches]) -> None:
        """Learns c from a rollout's states. States with fewer than two branches, or met again, tell nothing new."""
        for state in states:
            if len(state.scores) < 2 or not state.fresh:
                continue
            mean_score = sum(state.scores) / len(state.scores)
            mean_outcome = sum(state.outcomes) / len(state.outcomes)
            for score, outcome in zip(state.scores, state.outcomes, strict=True):
                self.covariance += (score - mean_score) * (outcome - mean_outcome)
                self.variance += (score - mean_score) ** 2

    def state_dict(self) -> dict[str, float]:
        return {"covariance": self.covariance, "variance": self.variance}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.covariance, self.variance = state["covariance"], state["variance"]
