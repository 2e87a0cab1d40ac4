"""What a benchmark of PRMs is: the solutions it is made of, its options, and what it must be able to do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from openrlhf_prm.evaluation.plots import Plot, PlotTable
from openrlhf_prm.options import Options, option
from vllm_prm.aggregation import SCORE_AGGREGATIONS

StepScores = list[float | None]


@dataclass(frozen=True, kw_only=True)
class BenchmarkSolution:
    """A solution to be scored. `subset` is what figures are given for, `group` the question: solutions of one group are
    not independent. `step_labels`: S of 1 (right), 0 (wrong), None (not known); None where the benchmark labels no
    steps. `correct`: whether its `answer` is right, where the benchmark asks for that; `truncated`: whether it was cut.
    """

    id: str
    subset: str
    group: str
    question: str
    steps: list[str]
    step_labels: list[int | None] | None = None
    answer: str | None = None
    correct: bool | None = None
    truncated: bool = False


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(Options):
    """How scores become numbers. A `threshold` that is not given is the benchmark's own or chosen on
    `threshold_split`; `seed` is that of the bootstrap and of drawn subsets.
    """

    threshold: float | None = option(
        None, "a step below it (prmbench: not above it) counts as judged wrong", kind=float
    )
    threshold_split: str | None = option(
        None,
        "where the threshold is chosen and nothing is reported: 'half' of the questions by hash, or a subset; "
        "without it processbench: half, prmbench: fixed at 0.5",
        kind=str,
    )
    vote_aggregation: str = option(
        "min", "best_of_n: how the plotted vote makes one weight of step scores", choices=SCORE_AGGREGATIONS
    )
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and self.threshold_split is not None:
            raise ValueError("threshold and --eval.threshold_split exclude each other")


@dataclass(frozen=True, kw_only=True)
class ReadOptions(Options):
    """Which rows are read, and how."""

    input_key: str = option("question", "best_of_n: key of the question in a row")
    label_key: str = option("label", "best_of_n: key of the reference answer in a row")
    max_samples: int | None = option(
        None, "first N solutions of each subset; best_of_n: first N questions", least=1, kind=int
    )
    answer_checker: Callable[[str, str], bool] | None = None
    splitter: str = "auto"


class Benchmark(Protocol):
    """One benchmark. A class without state; a line in `BENCHMARKS` makes it a choice of `--benchmark`."""

    title: str
    source: str  # the paper
    reads: frozenset[str]  # the flags that mean something to it and not to every benchmark
    default_split: str | None  # where the threshold is chosen unless the flags say; None: no threshold, or a fixed one

    def read(self, path: Path, options: ReadOptions) -> list[BenchmarkSolution]:
        """Raises ValueError naming the file and the row that is wrong."""

    def check(self, solutions: Sequence[BenchmarkSolution], options: MeasureOptions) -> str | None:
        """The split on which the threshold is chosen, None where it is not chosen, before anything is scored. Raises
        ValueError where it cannot be chosen there.
        """

    def measure(
        self, solutions: Sequence[BenchmarkSolution], scores: Sequence[StepScores], options: MeasureOptions
    ) -> dict:
        """The numbers, ready for JSON."""

    def tables(self, result: dict) -> list[PlotTable]:
        """The numbers as tables for people."""

    def plots(self, result: dict) -> list[Plot]:
        """The numbers as plots."""
