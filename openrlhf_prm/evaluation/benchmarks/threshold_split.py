"""On which solutions a benchmark's threshold is chosen. They are not reported, and questions never stand on both
sides.
"""

import hashlib
from collections.abc import Sequence

from openrlhf_prm.evaluation.benchmarks.benchmark import BenchmarkSolution, MeasureOptions

HALF = "half"
"""`--eval.threshold_split`: the threshold is chosen on one half of the questions and the other half is reported."""


def in_half(group: str) -> bool:
    """Whether a question belongs to the half on which thresholds are chosen: by the hash of its text."""
    return hashlib.sha256(group.encode()).digest()[0] % 2 == 0


def check_split(solutions: Sequence[BenchmarkSolution], options: MeasureOptions, default: str | None) -> str | None:
    """The split on which the threshold is chosen; None where it is fixed.

    Raises ValueError for a split that is no subset, and for one that leaves nothing to choose on or to report.
    """
    if options.threshold is not None:
        return None
    split = options.threshold_split or default
    subsets = list(dict.fromkeys(solution.subset for solution in solutions))
    if split not in (None, HALF, *subsets):
        raise ValueError(f"--eval.threshold_split {split!r} is neither {HALF} nor a subset: {', '.join(subsets)}")
    if split == HALF and len({in_half(solution.group) for solution in solutions}) < 2:
        raise ValueError(f"--eval.threshold_split {HALF}: all questions fall into the same half; give more of them")
    if split not in (None, HALF) and len(subsets) == 1:
        raise ValueError(f"--eval.threshold_split {split}: the only subset cannot be reported too; use {HALF}")
    return split


def is_tuning(solution: BenchmarkSolution, split: str | None) -> bool:
    """Whether the threshold may be chosen on the solution; it is then not reported."""
    return in_half(solution.group) if split == HALF else split is not None and solution.subset == split
