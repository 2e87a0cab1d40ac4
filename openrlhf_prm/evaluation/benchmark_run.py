"""A PRM measured on a benchmark: solutions -> step scores, kept on disk -> numbers."""

from dataclasses import dataclass
from pathlib import Path

from openrlhf_prm.data.ledger import Ledger
from openrlhf_prm.evaluation.benchmarks import BENCHMARKS, Benchmark, BenchmarkSolution, MeasureOptions, ReadOptions
from openrlhf_prm.evaluation.prm_source import PrmSource
from openrlhf_prm.evaluation.scoring import collected, missing, score_missing
from openrlhf_prm.evaluation.versions import versions
from openrlhf_prm.options import Options, option
from vllm_prm.durable_file import DurableFile


@dataclass(frozen=True, kw_only=True)
class ScoringOptions(Options):
    """How solutions are sent to the PRM."""

    truncate: bool = option(False, "leave steps beyond the PRM's context unscored instead of stopping")
    batch_size: int = option(64, "solutions scored between two writes", least=1)


@dataclass(frozen=True, kw_only=True)
class BenchmarkRun:
    """What is measured, and how. `data` names the benchmark's files in the result; `scores` keeps the scores."""

    name: str
    data: str
    solutions: list[BenchmarkSolution]
    prm: PrmSource
    scoring: ScoringOptions
    measuring: MeasureOptions
    scores: Path

    @property
    def benchmark(self) -> Benchmark:
        return BENCHMARKS[self.name]

    def open_scores(self) -> DurableFile:
        """The file of scores, to be used as a context manager. Raises ValueError where it was made with another PRM."""
        return DurableFile(self.scores, {**self.prm.settings(), "--eval.truncate": self.scoring.truncate})

    def score(self, scores: DurableFile) -> None:
        """Scores what the file does not hold yet; starts no engine where it holds everything."""
        todo = missing(self.solutions, scores)
        if not todo:
            return
        from tqdm import tqdm

        scorer = self.prm.scorer()
        done = len(self.solutions) - len(todo)
        try:
            with tqdm(total=len(self.solutions), initial=done, desc="scoring", unit="solution", mininterval=1) as bar:
                score_missing(
                    self.solutions, scorer, scores, self.scoring.batch_size, self.scoring.truncate, bar.update
                )
        finally:
            scorer.shutdown()

    def book(self, ledger: Ledger, scores: DurableFile) -> None:
        """What became of solutions and of their steps."""
        rows = collected(self.solutions, scores)
        reasons = {"no step": sum(not solution.steps for solution in self.solutions)}
        ledger.part(1, "solutions", len(rows), {"scored": len(rows) - reasons["no step"]}, reasons)
        came = sum(len(solution.steps) for solution in self.solutions)
        unscored = sum(score is None for row in rows for score in row)
        scored = sum(map(len, rows)) - unscored
        ledger.part(1, "steps", came, {"scored": scored}, {"beyond the context, or no verdict": unscored})
        ledger.ended({"solutions": len(self.solutions)})

    def measure(self, scores: DurableFile) -> dict:
        """The numbers, ready for JSON. Raises ValueError where a threshold cannot be chosen."""
        numbers = self.benchmark.measure(self.solutions, collected(self.solutions, scores), self.measuring)
        return {
            "benchmark": self.name,
            "prm": self.prm.name,
            "data": self.data,
            "solutions": len(self.solutions),
            **numbers,
            "seed": self.measuring.seed,
            "versions": versions(),
        }


def read_solutions(name: str, source: Path, reading: ReadOptions, measuring: MeasureOptions) -> list[BenchmarkSolution]:
    """The solutions of a benchmark. Raises ValueError naming the flag, or the file and row."""
    if not source.exists():
        raise ValueError(f"--data.input: no such file or folder: {source}")
    benchmark = BENCHMARKS[name]
    solutions = benchmark.read(source, reading)
    if not solutions:
        raise ValueError(f"--data.input: {source} holds no solution")
    benchmark.check(solutions, measuring)
    return solutions
