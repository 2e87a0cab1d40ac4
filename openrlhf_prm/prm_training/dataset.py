"""Labelled solutions -> what the PRM trainer reads.

Rows come from JSONL or Parquet files or any data set that OpenRLHF loads, in one of the formats of `data.formats_in`.
They are rendered by `vllm_prm`'s family, the code that also serves the trained PRM, so the two cannot differ.

Shapes: B solutions, T tokens of the longest of them, S steps, N targets (S, or B where outcomes are learnt).
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import torch

from openrlhf_prm.data.formats_in import LabelledSteps, Solution
from openrlhf_prm.data.rows import read_rows
from openrlhf_prm.prm_training.rendered import RenderedSolution, RenderedSolutions
from vllm_prm.families.implicit import RenderedSums
from vllm_prm.families.prm_family import PRMFamily

NAMED = 5  # places that a report's one line names


@dataclass
class DataReport:
    """What a data set lost on its way: rows that cannot be used and rows that are too long, with their places."""

    rows: int = 0
    bad_rows: list[str] = field(default_factory=list)
    cut_rows: list[str] = field(default_factory=list)
    dropped_steps: int = 0

    def __str__(self) -> str:
        """One line; the first five places of each kind are named."""
        text = f"{self.rows} solutions"
        if self.bad_rows:
            text += f", {len(self.bad_rows)} bad rows left out ({_some(self.bad_rows)})"
        if self.cut_rows:
            text += (
                f", {self.dropped_steps} steps of {len(self.cut_rows)} solutions beyond --data.max_len left out "
                f"({_some(self.cut_rows)})"
            )
        return text

    def as_dict(self) -> dict:
        """All places, for a file."""
        return {
            "solutions": self.rows,
            "bad_rows": self.bad_rows,
            "cut_rows": self.cut_rows,
            "dropped_steps": self.dropped_steps,
        }


def _some(places: Sequence[str]) -> str:
    more = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
    return "; ".join(places[:NAMED]) + more


def read_source(source: str, split: str = "train") -> Iterator[tuple[str, dict]]:
    """(place, row) of the comma-separated data sets in `source`: JSONL and Parquet files by line, others as OpenRLHF
    loads them, of those the split `split`.

    Raises ValueError for a file that is not there or cannot be read, naming file and line.
    """
    for name in (part.strip() for part in source.split(",")):
        if Path(name).suffix in (".jsonl", ".json", ".parquet"):
            if not Path(name).is_file():
                raise ValueError(f"no such file: {name}")
            unit = "row" if name.endswith(".parquet") else "line"
            for number, row in read_rows(name):
                yield f"{name} {unit} {number}", row
        else:
            yield from _read_with_host(name, split)


def _read_with_host(name: str, split: str) -> Iterator[tuple[str, dict]]:
    from types import SimpleNamespace

    from openrlhf.datasets.utils import blending_datasets

    silent = SimpleNamespace(print=lambda *_: None, is_rank_0=lambda: False, args=SimpleNamespace(use_ms=False))
    for number, row in enumerate(blending_datasets(name, None, silent, dataset_split=split), start=1):
        yield f"{name} row {number}", row


def usable_rows(
    rows: Iterable[tuple[str, dict]],
    read: Callable[[dict], Solution],
    *,
    strict: bool = False,
    max_samples: int | None = None,
) -> tuple[list[LabelledSteps], DataReport]:
    """The rows that can be trained on, at most `max_samples`, and a report of those that cannot.

    A row is bad where `read` (see `data.formats_in`) raises ValueError. With `strict` the first bad row raises it,
    naming its place; a source without one usable row always does.
    """
    usable: list[LabelledSteps] = []
    report = DataReport()
    for place, row in rows:
        try:
            usable.append(LabelledSteps(*read(row), place))
        except ValueError as error:
            fault = f"{place}: {error}"
            if strict:
                raise ValueError(fault) from None
            report.bad_rows.append(fault)
            continue
        if len(usable) == max_samples:
            break
    report.rows = len(usable)
    if not usable:
        raise ValueError(f"no usable row: {report}")
    return usable, report


@dataclass(frozen=True)
class PaddedSolutions:
    """B solutions padded on the right.

    `token_ids`, `attention_mask` (B, T) long; `step_rows`, `step_tokens` (S,) long: where the steps are scored, rows in
    order; `targets` (N,) float32 in the same order; `first` (B,) long, see `RenderedSolution`; `rows` (B,) numbers of
    the solutions in their data set.
    """

    token_ids: torch.Tensor
    attention_mask: torch.Tensor
    step_rows: torch.Tensor
    step_tokens: torch.Tensor
    targets: torch.Tensor
    first: torch.Tensor
    rows: list[int]

    @property
    def steps(self) -> list[int]:
        """Number of steps of each solution."""
        return torch.bincount(self.step_rows, minlength=len(self.rows)).tolist()

    def to(self, device: torch.device) -> "PaddedSolutions":
        """The same on `device`."""
        tensors = {
            entry.name: getattr(self, entry.name).to(device) for entry in fields(self) if entry.type is torch.Tensor
        }
        return replace(self, **tensors)


class StepLabelDataset(torch.utils.data.Dataset):
    """Rendered solutions.

    A step without a label is written like any other, but not scored. A solution longer than `max_len` tokens is cut on
    the right and loses the labels cut off; one that keeps none is left out, and so is every cut one where its only
    label is the outcome. Rows that the family cannot render are bad. `report` counts and places all of them. Raises
    ValueError where nothing is left, and with `strict` for the first solution that loses a label.
    """

    def __init__(
        self,
        rows: Sequence[LabelledSteps],
        report: DataReport,
        family: PRMFamily,
        pad_token_id: int,
        max_len: int,
        *,
        outcome: bool = False,
        strict: bool = False,
    ):
        self.pad_token_id = pad_token_id
        self.solutions: list[LabelledSteps] = []
        """The rows that are left; empty where the solutions were rendered by another process."""
        self.report = report
        self.rendered = RenderedSolutions.of(self._rendered(rows, family, max_len, outcome, strict))
        report.rows = len(self.rendered)
        if not self.rendered:
            raise ValueError(f"no solution is left: {report}; raise --data.max_len {max_len} where it cuts them off")

    def _rendered(
        self, rows: Sequence[LabelledSteps], family: PRMFamily, max_len: int, outcome: bool, strict: bool
    ) -> Iterator[RenderedSolution]:
        report = self.report
        for row in rows:
            try:
                rendered = family.render(row.question, row.steps)
            except ValueError as error:
                if strict:
                    raise ValueError(f"{row.place}: {error}") from None
                report.bad_rows.append(f"{row.place}: {error}")
                continue
            places = rendered.step_positions
            if not outcome:
                places = [at for at, target in zip(places, row.targets, strict=True) if target is not None]
            positions = [position for position in places if position < max_len]
            if lost := len(places) - len(positions):
                fault = f"{row.place}: {lost} of {len(places)} steps beyond --data.max_len {max_len}"
                if strict:
                    raise ValueError(fault)
                positions = [] if outcome else positions
                report.cut_rows.append(fault)
                report.dropped_steps += len(places) - len(positions)
            if positions:
                # Nothing after the last scored token is ever looked at.
                tokens = rendered.token_ids[: positions[-1] + 1]
                labels = [target for target in row.targets if target is not None]
                targets = labels if outcome else labels[: len(positions)]
                first = rendered.first if isinstance(rendered, RenderedSums) else 0
                self.solutions.append(row)
                yield RenderedSolution(len(self.solutions) - 1, tokens, positions, targets, first)

    def save(self, folder: Path) -> None:
        """Writes what `mapped` reads into `folder`, which is there or made."""
        self.rendered.save(folder / "rendered")
        (folder / "report.json").write_text(json.dumps(asdict(self.report)))

    @classmethod
    def mapped(cls, folder: Path, pad_token_id: int) -> "StepLabelDataset":
        """The data set that another process saved, without its `solutions`."""
        dataset = cls.__new__(cls)
        dataset.pad_token_id, dataset.solutions = pad_token_id, []
        dataset.report = DataReport(**json.loads((folder / "report.json").read_text()))
        dataset.rendered = RenderedSolutions.mapped(folder / "rendered")
        return dataset

    def __len__(self) -> int:
        return len(self.rendered)

    def __getitem__(self, index: int) -> RenderedSolution:
        return self.rendered[index]

    def collate(self, solutions: Sequence[RenderedSolution]) -> PaddedSolutions:
        """Pads B solutions into one batch."""
        width = max(len(solution.token_ids) for solution in solutions)
        token_ids = torch.full((len(solutions), width), self.pad_token_id, dtype=torch.long)
        attention_mask = torch.zeros_like(token_ids)
        for row, solution in enumerate(solutions):
            token_ids[row, : len(solution.token_ids)] = torch.tensor(solution.token_ids)
            attention_mask[row, : len(solution.token_ids)] = 1
        return PaddedSolutions(
            token_ids,
            attention_mask,
            torch.tensor([row for row, solution in enumerate(solutions) for _ in solution.positions]),
            torch.tensor([position for solution in solutions for position in solution.positions]),
            torch.tensor([target for solution in solutions for target in solution.targets]),
            torch.tensor([solution.first for solution in solutions]),
            [solution.index for solution in solutions],
        )
