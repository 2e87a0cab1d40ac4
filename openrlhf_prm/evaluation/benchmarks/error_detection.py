"""How well scores tell the steps before a first error from the error: what all benchmarks with step labels report."""

from collections.abc import Sequence
from itertools import chain

from openrlhf_prm.evaluation.benchmarks.benchmark import BenchmarkSolution, StepScores
from openrlhf_prm.evaluation.plots import Plot, PlotTable, number, reliability_plot
from openrlhf_prm.measures.steps import auc_with_interval, calibration, up_to_first_error


def detection_measures(solutions: Sequence[BenchmarkSolution], scores: Sequence[StepScores], seed: int) -> dict:
    """`first_error_auc` with its interval, and `calibration`, over the steps up to each first error."""
    kept = [up_to_first_error(row, solution.step_labels) for solution, row in zip(solutions, scores, strict=True)]
    flat, right = list(chain(*(values for values, _ in kept))), list(chain(*(labels for _, labels in kept)))
    groups = [solution.group for solution, (values, _) in zip(solutions, kept, strict=True) for _ in values]
    auc = auc_with_interval(flat, right, groups, seed=seed)
    return {
        "first_error_auc": auc["auc"],
        "first_error_auc_interval": auc["interval"],
        "calibration": calibration(flat, right, groups, seed=seed),
    }


def detection_table(result: dict) -> PlotTable:
    """The same as a table."""
    rows = [["ROC AUC of first-error detection", number(result["first_error_auc"], result["first_error_auc_interval"])]]
    calibrated = result["calibration"]
    if calibrated is None:
        rows.append(["calibration", "– (scores are no probabilities)"])
    else:
        rows.append(["Brier score", number(calibrated["brier"], calibrated["brier_interval"])])
        rows.append(["expected calibration error", number(calibrated["ece"])])
    return PlotTable("Steps up to the first error", ["measure", "value"], rows)


def calibration_plots(result: dict) -> list[Plot]:
    """The reliability diagram, where there is one."""
    return [reliability_plot(result["calibration"]["reliability"])] if result.get("calibration") else []
