"""BenchmarkSolutions -> step scores, through a PRM, with a file that keeps what was scored."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from openrlhf_prm.evaluation.benchmarks.benchmark import BenchmarkSolution, StepScores
from vllm_prm.durable_file import DurableFile


def solution_key(solution: BenchmarkSolution) -> str:
    """What the scores of a solution are kept under: the hash of its question and its steps."""
    return hashlib.sha256(json.dumps([solution.question, solution.steps]).encode()).hexdigest()


def missing(solutions: Sequence[BenchmarkSolution], file: DurableFile) -> list[BenchmarkSolution]:
    """The solutions without scores, equal ones once. Those without a step need none."""
    wanted = {solution_key(solution): solution for solution in solutions if solution.steps}
    return [solution for key, solution in wanted.items() if key not in file.finished]


def score_missing(
    solutions: Sequence[BenchmarkSolution],
    scorer: Any,
    file: DurableFile,
    batch_size: int,
    truncate: bool = False,
    scored: Callable[[int], None] = lambda count: None,
) -> None:
    """Scores what is missing, `batch_size` solutions at a time, each batch on disk before the next begins.

    `scorer` is a `vllm_prm.scorer.StepScorer`. The longest ones come first, so that one beyond the PRM's context
    is found at once. Raises what the scorer raises, among it `ContextLengthError` for such a solution, unless
    `truncate` leaves its last steps without scores.
    """
    todo = sorted(missing(solutions, file), key=lambda one: -len(one.question) - sum(map(len, one.steps)))
    for start in range(0, len(todo), batch_size):
        batch = todo[start : start + batch_size]
        scores = scorer.score([(solution.question, solution.steps) for solution in batch], truncate=truncate)
        keys = map(solution_key, batch)
        file.append([{"key": key, "step_scores": row} for key, row in zip(keys, scores, strict=True)])
        scored(len(batch))


def collected(solutions: Sequence[BenchmarkSolution], file: DurableFile) -> list[StepScores]:
    """The scores of all solutions in their order; [] for one without a step."""
    scores = {row["key"]: row["step_scores"] for row in file.rows()}
    return [scores[solution_key(solution)] if solution.steps else [] for solution in solutions]
