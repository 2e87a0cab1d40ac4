"""A located first error and the counts along a solution -> its labels."""

from collections.abc import Callable, Mapping, Sequence

from openrlhf_prm.annotation.records import LabelledSolution, Tally
from openrlhf_prm.annotation.rollouts import Solution


def label_solution(
    solution: Solution,
    first_error: int,
    measured: Mapping[int, Tally],
    question_value: float,
    estimate: Callable[[Tally], float],
    visits: Sequence[int] | None = None,
    copies: int = 1,
) -> LabelledSolution:
    """The record of a solution of S steps whose first wrong step is `first_error` (from 0; S: no error).

    `measured`: counts after the first t steps, 0 < t < S. Soft labels are `estimate(counts)` where measured, the
    outcome at the last step, and the straight line between measured neighbours elsewhere, beginning with the question's
    value; a hard label outweighs them only in so far as training asks for hard labels.
    """
    count = len(solution.steps)
    outcome = float(solution.rollout.correct)
    known = {0: question_value, **{t: estimate(measured[t]) for t in measured}, count: outcome}
    nothing = Tally(0, 0)
    counts = [measured.get(t, nothing) for t in range(1, count + 1)]
    values: list[float | None] = [tally.value if tally.rollouts else None for tally in counts]
    if count:
        values[-1] = outcome
    return LabelledSolution(
        response=solution.response,
        steps=solution.steps,
        mc_values=values,
        hard_labels=[int(step < first_error) for step in range(count)],
        soft_labels=[_between(known, t) for t in range(1, count + 1)],
        right=[tally.right for tally in counts],
        rollouts=[tally.rollouts for tally in counts],
        visits=list(visits) if visits is not None else [0] * count,
        correct=solution.rollout.correct,
        truncated=solution.rollout.truncated,
        endings=[tally.endings for tally in counts],
        copies=copies,
    )


def _between(known: Mapping[int, float], t: int) -> float:
    """The value at t on the line through its known neighbours."""
    if t in known:
        return known[t]
    before, after = max(k for k in known if k < t), min(k for k in known if k > t)
    return known[before] + (known[after] - known[before]) * (t - before) / (after - before)
