"""What benchmarks of PRMs share: the items, what a benchmark must be able to do, and the measures that all of them
report."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from openrlhf_prm.evaluation.plots import Plot, PlotTable, reliability_plot
from openrlhf_prm.measures.steps import auc_with_interval, calibration, up_to_first_error

StepScores = list[float | None]
HALF = "half"
"""`--eval.threshold_split`: the threshold is chosen on one half of the questions and the other half is reported."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A solution to be scored. `subset` is what figures are given for, `group` the question: items of one group are not
    independent. `step_labels`: S of 1 (right), 0 (wrong), None (not known); None where the benchmark labels no steps.
    """

    id: str
    subset: str
    group: str
    question: str
    steps: list[str]
    step_labels: list[int | None] | None = None
    answer: str | None = None
    correct: bool | None = None


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """`threshold`: fixed, or None for the benchmark's own way; `threshold_split`: `half` or the name of a subset on
    which it is chosen; `vote_aggregation`: score of a vote; `seed` of the bootstrap and of drawn subsets.
    """

    threshold: float | None = None
    threshold_split: str | None = None
    vote_aggregation: str = "min"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How rows are read: keys of a row, and at most `max_samples` items of each subset."""

    input_key: str = "question"
    label_key: str = "label"
    max_samples: int | None = None
    answer_checker: Any = None


class Benchmark(Protocol):
    """One benchmark. A class without state; a line in `BENCHMARKS` makes it a choice of `--benchmark`."""

    title: str
    source: str  # the paper
    has_threshold: bool  # whether its measures compare scores with one
    default_split: str | None  # where the threshold is chosen unless the flags say; None: no threshold, or a fixed one

    def read(self, path: Path, options: ReadOptions) -> list[Item]:
        """Raises ValueError naming the file and the row that is wrong."""

    def measure(self, items: Sequence[Item], scores: Sequence[StepScores], options: MeasureOptions) -> dict:
        """The numbers, ready for JSON."""

    def tables(self, result: dict) -> list[PlotTable]:
        """The numbers as tables for people."""

    def plots(self, result: dict) -> list[Plot]:
        """The numbers as plots."""


def in_half(group: str) -> bool:
    """Whether a question belongs to the half on which thresholds are chosen: by the hash of its text."""
    return hashlib.sha256(group.encode()).digest()[0] % 2 == 0


def check_split(items: Sequence[Item], options: MeasureOptions, default: str | None) -> str | None:
    """The split on which the threshold is chosen; None where it is fixed.

    Raises ValueError where both a threshold and a split are given, and for a split that is no subset.
    """
    if options.threshold is not None:
        if options.threshold_split is not None:
            raise ValueError("--eval.threshold and --eval.threshold_split exclude each other")
        return None
    split = options.threshold_split or default
    subsets = list(dict.fromkeys(item.subset for item in items))
    if split not in (None, HALF, *subsets):
        raise ValueError(f"--eval.threshold_split {split!r} is neither {HALF} nor a subset: {', '.join(subsets)}")
    if split == HALF and len({in_half(item.group) for item in items}) < 2:
        raise ValueError(f"--eval.threshold_split {HALF}: all questions fall into the same half; give more of them")
    if split not in (None, HALF) and len(subsets) == 1:
        raise ValueError(f"--eval.threshold_split {split}: the only subset cannot be reported too; use {HALF}")
    return split


def is_tuning(item: Item, split: str | None) -> bool:
    """Whether the threshold may be chosen on the item; it is then not reported."""
    return in_half(item.group) if split == HALF else split is not None and item.subset == split


def detection_measures(items: Sequence[Item], scores: Sequence[StepScores], seed: int) -> dict:
    """`first_error_auc` with its interval, and `calibration`, over the steps up to each first error, as all benchmarks
    with step labels report them.
    """
    kept = [up_to_first_error(row, item.step_labels) for item, row in zip(items, scores, strict=True)]
    flat, right = list(chain(*(values for values, _ in kept))), list(chain(*(labels for _, labels in kept)))
    groups = [item.group for item, (values, _) in zip(items, kept, strict=True) for _ in values]
    auc = auc_with_interval(flat, right, groups, seed=seed)
    return {
        "first_error_auc": auc["auc"],
        "first_error_auc_interval": auc["interval"],
        "calibration": calibration(flat, right, groups, seed=seed),
    }


def detection_rows(result: dict) -> list[list[str]]:
    """The same as rows of a table."""
    rows = [["ROC AUC of first-error detection", number(result["first_error_auc"], result["first_error_auc_interval"])]]
    calibrated = result["calibration"]
    if calibrated is None:
        return [*rows, ["calibration", "– (scores are no probabilities)"]]
    rows.append(["Brier score", number(calibrated["brier"], calibrated["brier_interval"])])
    return [*rows, ["expected calibration error", number(calibrated["ece"])]]


def calibration_plots(result: dict) -> list[Plot]:
    """The reliability diagram, where there is one."""
    return [reliability_plot(result["calibration"]["reliability"])] if result.get("calibration") else []


def percent(value: float | None, interval: Iterable[float] | None = None) -> str:
    """A share and its interval in percent."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}" + (" ({:.1f}–{:.1f})".format(*(100 * bound for bound in interval)) if interval else "")


def number(value: float | None, interval: Iterable[float] | None = None) -> str:
    """A number and its interval with three digits."""
    if value is None:
        return "–"
    return f"{value:.3f}" + (" ({:.3f}–{:.3f})".format(*interval) if interval else "")


def source_files(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of a folder with one of the suffixes, or the file itself. Raises ValueError where there is none."""
    if path.is_file():
        return [path]
    files = sorted(file for file in path.glob("*") if file.suffix in suffixes) if path.is_dir() else []
    if not files:
        raise ValueError(f"--data.input: no {' or '.join(suffixes)} file in {path}")
    return files


def read_array(path: Path) -> list[tuple[str, dict]]:
    """(where, row) of a JSON array of objects. Raises ValueError naming the file and the entry."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected a JSON array, got {type(rows).__name__}")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{path} entry {index}: expected a JSON object, got {type(row).__name__}")
    return [(f"{path} entry {index}", row) for index, row in enumerate(rows)]


def text_of(row: dict, key: str, where: str) -> str:
    """A text of a row. Raises ValueError where it is missing or empty."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {key!r} must be a text, got {value!r}")
    return value


def steps_of(row: dict, key: str, where: str) -> list[str]:
    """The list of steps of a row. Raises ValueError for anything else."""
    value = row.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(step, str) for step in value):
        raise ValueError(f"{where}: {key!r} must be a list of texts that is not empty")
    return value
