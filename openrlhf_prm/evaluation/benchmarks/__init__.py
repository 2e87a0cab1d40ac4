"""Benchmarks of process reward models. One file and one line each."""

from openrlhf_prm.evaluation.benchmarks.benchmark import Benchmark, BenchmarkSolution, MeasureOptions, ReadOptions
from openrlhf_prm.evaluation.benchmarks.best_of_n import BestOfN
from openrlhf_prm.evaluation.benchmarks.prmbench import PRMBench
from openrlhf_prm.evaluation.benchmarks.processbench import ProcessBench

BENCHMARKS: dict[str, Benchmark] = {
    "processbench": ProcessBench(),
    "prmbench": PRMBench(),
    "best_of_n": BestOfN(),
}
"""Name of a benchmark -> benchmark."""

__all__ = ["BENCHMARKS", "Benchmark", "BenchmarkSolution", "MeasureOptions", "ReadOptions"]
