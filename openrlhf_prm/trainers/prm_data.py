"""Step-labelled solutions -> what the PRM trainer reads.

Rows come from JSONL files (`openrlhf_prm.annotation.records` is one such schema) or any dataset that OpenRLHF loads.
They are rendered by `vllm_prm`'s family, the code that also serves the trained PRM, so the two cannot differ.

Shapes: B solutions, T tokens of the longest of them, S steps.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from openrlhf_prm.annotation.records import read_jsonl
from vllm_prm.families.base import PRMFamily


@dataclass(frozen=True)
class LabelledSteps:
    """A solution with one target per step: the probability in [0, 1] of the positive reward token."""

    question: str
    steps: list[str]
    targets: list[float]


@dataclass
class DataReport:
    """What a data set lost on its way: rows that cannot be used, with their place, and what did not fit."""

    rows: int = 0
    bad_rows: list[str] = field(default_factory=list)
    cut_rows: int = 0
    dropped_steps: int = 0

    def __str__(self) -> str:
        """One line; the first five bad rows are named."""
        text = f"{self.rows} solutions"
        if self.bad_rows:
            more = f" and {len(self.bad_rows) - 5} more" if len(self.bad_rows) > 5 else ""
            text += f", {len(self.bad_rows)} bad rows left out ({'; '.join(self.bad_rows[:5])}{more})"
        if self.dropped_steps:
            text += f", {self.dropped_steps} steps of {self.cut_rows} solutions beyond --data.max_len left out"
        return text


def read_source(source: str) -> Iterator[tuple[str, dict]]:
    """(place, row) of the comma-separated datasets in `source`: JSONL files by line, others as OpenRLHF loads them.

    Raises ValueError for a file that is not there or is not JSONL, naming file and line.
    """
    for name in (part.strip() for part in source.split(",")):
        if Path(name).suffix in (".jsonl", ".json"):
            if not Path(name).is_file():
                raise ValueError(f"no such file: {name}")
            for number, row in read_jsonl(name):
                yield f"{name} line {number}", row
        else:
            yield from _read_with_host(name)


def _read_with_host(name: str) -> Iterator[tuple[str, dict]]:
    from types import SimpleNamespace

    from openrlhf.datasets.utils import blending_datasets

    silent = SimpleNamespace(print=lambda *_: None, is_rank_0=lambda: False, args=SimpleNamespace(use_ms=False))
    for number, row in enumerate(blending_datasets(name, None, silent)):
        yield f"{name} row {number}", row


def usable_rows(
    rows: Iterable[tuple[str, dict]],
    *,
    question_key: str,
    steps_key: str,
    label_key: str,
    strict: bool = False,
    max_samples: int | None = None,
) -> tuple[list[LabelledSteps], DataReport]:
    """The rows that can be trained on, at most `max_samples`, and a report of those that cannot.

    A row is bad when a key is missing, it has no steps, a step is no text, or its labels are not one number in [0, 1]
    per step; booleans count as 0 and 1. With `strict` the first bad row raises ValueError naming its place; a source
    without one usable row always does.
    """
    found: list[LabelledSteps] = []
    report = DataReport()
    for place, row in rows:
        fault = _fault(row, question_key, steps_key, label_key)
        if fault:
            if strict:
                raise ValueError(f"{place}: {fault}")
            report.bad_rows.append(f"{place}: {fault}")
            continue
        found.append(LabelledSteps(row[question_key], list(row[steps_key]), [float(x) for x in row[label_key]]))
        if len(found) == max_samples:
            break
    report.rows = len(found)
    if not found:
        raise ValueError(f"no usable row: {report}")
    return found, report


def _fault(row: dict, question_key: str, steps_key: str, label_key: str) -> str | None:
    for key in (question_key, steps_key, label_key):
        if row.get(key) is None:
            return f"no key {key!r}; the row has {', '.join(row) or 'none'}"
    question, steps, labels = row[question_key], row[steps_key], row[label_key]
    if not isinstance(question, str):
        return f"{question_key!r} must be a text"
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        return f"{steps_key!r} must be a list of texts"
    if not steps:
        return "no steps"
    if not isinstance(labels, list) or len(labels) != len(steps):
        return f"{len(steps)} steps but {len(labels) if isinstance(labels, list) else 'no list of'} labels"
    if not all(isinstance(label, int | float) and 0 <= label <= 1 for label in labels):  # NaN fails the comparison
        return f"labels must be numbers in [0, 1], got {labels}"
    return None


@dataclass(frozen=True)
class StepBatch:
    """B solutions padded on the right: `token_ids`, `attention_mask` (B, T) long, `step_mask` (B, T) bool with S True
    entries at the tokens where a step is scored, `targets` (S,) float32 in the order of the mask, `rows` (B,) numbers
    of the solutions in their data set."""

    token_ids: torch.Tensor
    attention_mask: torch.Tensor
    step_mask: torch.Tensor
    targets: torch.Tensor
    rows: list[int]


class StepLabelDataset(torch.utils.data.Dataset):
    """Rendered solutions. A solution longer than `max_len` tokens is cut on the right and loses the steps cut off; one
    that keeps no step is left out; `report` counts both. Raises ValueError where nothing is left."""

    def __init__(
        self,
        rows: Sequence[LabelledSteps],
        report: DataReport,
        family: PRMFamily,
        pad_token_id: int,
        max_len: int,
    ):
        self.pad_token_id = pad_token_id
        self.items: list[tuple[list[int], list[int], list[float]]] = []
        self.report = report
        for row in rows:
            rendered = family.render(row.question, row.steps)
            positions = [position for position in rendered.step_positions if position < max_len]
            report.dropped_steps += len(row.steps) - len(positions)
            report.cut_rows += len(positions) < len(row.steps)
            if positions:
                # Nothing after the last scored token is ever looked at.
                self.items.append((rendered.token_ids[: positions[-1] + 1], positions, row.targets[: len(positions)]))
        report.rows = len(self.items)
        if not self.items:
            raise ValueError(f"--data.max_len {max_len} cuts every step off; raise it")

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[int, list[int], list[int], list[float]]:
        return (index, *self.items[index])

    def collate(self, items: Sequence[tuple[int, list[int], list[int], list[float]]]) -> StepBatch:
        """Pads B items into one batch."""
        width = max(len(token_ids) for _, token_ids, _, _ in items)
        token_ids = torch.full((len(items), width), self.pad_token_id, dtype=torch.long)
        attention_mask = torch.zeros_like(token_ids)
        step_mask = torch.zeros_like(token_ids, dtype=torch.bool)
        for row, (_, ids, positions, _) in enumerate(items):
            token_ids[row, : len(ids)] = torch.tensor(ids)
            attention_mask[row, : len(ids)] = 1
            step_mask[row, positions] = True
        targets = torch.tensor([target for _, _, _, row_targets in items for target in row_targets])
        return StepBatch(token_ids, attention_mask, step_mask, targets, [index for index, *_ in items])
