"""When a step counts as good, given Monte Carlo values. One class and one line in `RULES` each.

v_t = right_t / rollouts_t estimates the chance MC(s_t) that the policy gets the answer right from after step t; v_0 is
the value of the question.

`labels` judges all values of a solution at once. `is_good` and `decide` judge one prefix in a binary search for the
first error, against `reference`, the value of the best prefix known to be good: along good steps MC does not fall (it
is a martingale under the policy, and the good steps are those that keep it), so a prefix far below the reference has
an error before it. The search compares with the last good prefix instead of the step before, because that is what
it knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openrlhf_prm.annotation.records import Tally
from openrlhf_prm.measures.intervals import wilson_interval
from openrlhf_prm.options import option

GOOD_SHARE = 0.8
"""A step that keeps this share of the value before it is good (GenPRM, arXiv:2504.00891)."""


@dataclass(frozen=True)
class Positive:
    """Good if any rollout is right, MC > 0: Math-Shepherd's and OmegaPRM's rule. A policy that repairs a mistake once
    in twenty makes wrong steps look good, the more the more rollouts are taken.

    `reached_is_good`: a right ending that was seen from a state settles that it is good, whoever wrote it and why.
    """

    needs_question_value: bool = False
    reached_is_good: bool = True

    def labels(self, question_value: float, values: Sequence[float]) -> list[int]:
        """S labels: 1[v_t > 0], each step by itself."""
        return [int(value > 0) for value in values]

    def is_good(self, counts: Tally, reference: float) -> bool:
        """After all rollouts."""
        return counts.right > 0

    def decide(self, counts: Tally, reference: float, z: float) -> bool | None:
        """Before all rollouts: good with the first right one, bad as soon as Wilson's upper limit is below 0.8 times
        the reference, else None.
        """
        if counts.right:
            return True
        return False if wilson_interval(counts.right, counts.rollouts, z)[1] < GOOD_SHARE * reference else None


@dataclass(frozen=True)
class RelativeProgress:
    """Good if MC(s_t) / MC(s_{t-1}) >= 0.8; after MC = 0 everything is bad (arXiv:2504.00891).

    It needs precise values: with 8 rollouts, two good steps of value 0.5 fail the ratio one time in three. So a search
    with few rollouts, where the question is "still on the way or lost", puts the cut at half of 0.8 times the
    reference, and decides early on intervals.
    """

    needs_question_value: bool = True
    reached_is_good: bool = False

    def labels(self, question_value: float, values: Sequence[float]) -> list[int]:
        """S labels, each step against the one before it: the published rule."""
        labels, before, lost = [], question_value, question_value == 0
        for value in values:
            lost = lost or value == 0
            labels.append(int(not lost and value >= GOOD_SHARE * before))
            before = value
        return labels

    def is_good(self, counts: Tally, reference: float) -> bool:
        """After all rollouts: v >= 0.8/2 times the reference. No right rollout is always bad."""
        return counts.right > 0 and counts.value >= GOOD_SHARE / 2 * reference

    def decide(self, counts: Tally, reference: float, z: float) -> bool | None:
        """Before all rollouts: bad as soon as Wilson's upper limit is below 0.8 times the reference, good as soon as
        its lower limit reaches a quarter of that, else None.
        """
        low, high = wilson_interval(counts.right, counts.rollouts, z)
        if high < GOOD_SHARE * reference:
            return False
        return True if low >= GOOD_SHARE / 4 * reference else None


RULES: dict[str, Positive | RelativeProgress] = {"positive": Positive(), "relative_progress": RelativeProgress()}
"""Name of a rule -> rule."""


def rule_option(default: str) -> Any:
    """The option of an annotator that names its rule."""
    text = "when a step is good: positive (any rollout right) or relative_progress"
    return option(default, text, choices=RULES)
