"""Items -> step scores, through a PRM, with a file that keeps what was scored."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from openrlhf_prm.data.progress_file import ProgressFile
from openrlhf_prm.evaluation.benchmarks.benchmark import Item, StepScores


def solution_key(item: Item) -> str:
    """What the scores of a solution are kept under: the hash of its question and its steps."""
    return hashlib.sha256(json.dumps([item.question, item.steps]).encode()).hexdigest()


def missing(items: Sequence[Item], file: ProgressFile) -> list[Item]:
    """The items without scores, equal solutions once. Those without a step need none."""
    wanted = {solution_key(item): item for item in items if item.steps}
    return [item for key, item in wanted.items() if key not in file.finished]


def score_missing(
    items: Sequence[Item],
    scorer: Any,
    file: ProgressFile,
    batch_size: int,
    truncate: bool = False,
    scored: Callable[[int], None] = lambda count: None,
) -> None:
    """Scores what is missing, `batch_size` solutions at a time, each batch on disk before the next begins.

    `scorer` is a `vllm_prm.scorer.StepScorer`. The longest ones come first, so that one beyond the PRM's context
    is found at once. Raises what the scorer raises, among it `ContextLengthError` for such a solution, unless
    `truncate` leaves its last steps without scores.
    """
    todo = sorted(missing(items, file), key=lambda item: -len(item.question) - sum(map(len, item.steps)))
    for start in range(0, len(todo), batch_size):
        batch = todo[start : start + batch_size]
        scores = scorer.score([(item.question, item.steps) for item in batch], truncate=truncate)
        file.append([{"key": solution_key(item), "step_scores": row} for item, row in zip(batch, scores, strict=True)])
        scored(len(batch))


def collected(items: Sequence[Item], file: ProgressFile) -> list[StepScores]:
    """The scores of all items in their order; [] for an item without a step."""
    found = {row["key"]: row["step_scores"] for row in file.rows()}
    return [found[solution_key(item)] if item.steps else [] for item in items]


def fingerprint(model: str) -> str | None:
    """What tells one state of a checkpoint from another: its files' names, sizes and times of change. None for what is
    no folder.
    """
    folder = Path(model)
    if not folder.is_dir():
        return None
    files = [(each.name, each.stat()) for each in sorted(folder.iterdir()) if each.is_file()]
    facts = [(name, state.st_size, state.st_mtime_ns) for name, state in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
