"""ProcessBench (arXiv:2412.06559): find the first wrong step of a solution, or say that there is none."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from openrlhf_prm.evaluation.benchmarks.benchmark import BenchmarkSolution, MeasureOptions, ReadOptions, StepScores
from openrlhf_prm.evaluation.benchmarks.error_detection import calibration_plots, detection_measures, detection_table
from openrlhf_prm.evaluation.benchmarks.rows import read_array, source_files, steps_of, text_of
from openrlhf_prm.evaluation.benchmarks.threshold_split import HALF, check_split, is_tuning
from openrlhf_prm.evaluation.plots import Plot, PlotCurve, PlotTable, percent
from openrlhf_prm.measures.intervals import interval_of_sums, mean, sums_by_question
from openrlhf_prm.measures.steps import NO_ERROR, error_f1, first_error, harmonic_mean, predicted_error
from openrlhf_prm.measures.thresholds import error_threshold

SHARES = ("error_accuracy", "correct_accuracy", "f1")


class ProcessBench:
    """Per subset (one JSON file each): accuracy on solutions with an error, on those without, and their harmonic mean.

    A PRM names the first step that scores below a threshold. The paper chooses it on the subset GSM8K
    (`threshold_split` gsm8k); by default here it is chosen on half of the questions of all subsets. Solutions that the
    threshold was chosen on are not reported. A step without a score before the first one below the threshold makes a
    solution count as missed.
    """

    title = "ProcessBench"
    source = "arXiv:2412.06559"
    reads = frozenset({"eval.threshold", "eval.threshold_split"})
    default_split: str | None = HALF

    def read(self, path: Path, options: ReadOptions) -> list[BenchmarkSolution]:
        """Rows have `id`, `problem`, `steps` and `label`, the index of the first wrong step from 0 or -1."""
        solutions: dict[str, BenchmarkSolution] = {}
        for file in source_files(path, [".json"]):
            for where, row in read_array(file)[: options.max_samples]:
                question = text_of(row, "problem", where)
                steps = steps_of(row, "steps", where)
                label = row.get("label")
                if isinstance(label, bool) or not isinstance(label, int) or not -1 <= label < len(steps):
                    raise ValueError(
                        f"{where}: 'label' must be -1 or the index of one of {len(steps)} steps, got {label!r}"
                    )
                identity = str(row.get("id", where))
                if identity in solutions:
                    raise ValueError(f"{where}: id {identity!r} stands there twice")
                labels = [1] * len(steps) if label == -1 else [1] * label + [0] + [None] * (len(steps) - label - 1)
                solutions[identity] = BenchmarkSolution(
                    id=identity, subset=file.stem, group=question, question=question, steps=steps, step_labels=labels
                )
        return list(solutions.values())

    def check(self, solutions: Sequence[BenchmarkSolution], options: MeasureOptions) -> str | None:
        """Choosing a threshold needs solutions with and without an error."""
        split = check_split(solutions, options, self.default_split)
        if split is not None:
            tuning = [solution for solution in solutions if is_tuning(solution, split)]
            without = sum(first_error(solution.step_labels) == NO_ERROR for solution in tuning)
            if without in (0, len(tuning)):
                raise ValueError(
                    f"--eval.threshold_split {split}: a threshold is chosen on solutions with and without an error, "
                    f"and of the {len(tuning)} there {without or 'none'} are without one; give more solutions, "
                    "or --eval.threshold"
                )
        return split

    def measure(
        self, solutions: Sequence[BenchmarkSolution], scores: Sequence[StepScores], options: MeasureOptions
    ) -> dict:
        """See the class. `average` is the mean over the subsets, `all` pools their solutions."""
        split = self.check(solutions, options)
        errors = [first_error(solution.step_labels) for solution in solutions]
        tuning = [is_tuning(solution, split) for solution in solutions]
        threshold = options.threshold
        if split is not None:
            chosen = [index for index, is_chosen in enumerate(tuning) if is_chosen]
            try:
                threshold = error_threshold([scores[i] for i in chosen], [errors[i] for i in chosen])
            except ValueError as error:
                raise ValueError(f"--eval.threshold_split {split}: {error}") from None
        reported = [index for index, is_chosen in enumerate(tuning) if not is_chosen]
        names = list(dict.fromkeys(solutions[index].subset for index in reported))
        predictions = [predicted_error(row, threshold) for row in scores]

        def figures(indices: list[int]) -> dict:
            groups = [solutions[i].group for i in indices]
            return _figures([predictions[i] for i in indices], [errors[i] for i in indices], groups, options.seed)

        subsets = {name: figures([i for i in reported if solutions[i].subset == name]) for name in names}
        known = all(subset["f1"] is not None for subset in subsets.values())
        reported_solutions, reported_scores = [solutions[i] for i in reported], [scores[i] for i in reported]
        return {
            "threshold": threshold,
            "threshold_split": split or "fixed",
            "tuning_solutions": sum(tuning),
            "unscored_solutions": sum(None in row for row in scores),
            "subsets": subsets,
            "average": {name: mean([subset[name] for subset in subsets.values()]) for name in SHARES}
            if known
            else None,
            "all": figures(reported),
            **detection_measures(reported_solutions, reported_scores, options.seed),
            "threshold_curve": _threshold_curve(reported_scores, [errors[i] for i in reported]),
        }

    def tables(self, result: dict) -> list[PlotTable]:
        """Figures per subset, and the measures of error detection."""
        rows = [[name, *_row(figures)] for name, figures in result["subsets"].items()]
        if result["average"] and len(rows) > 1:
            rows.append(["average", *(percent(result["average"][name]) for name in SHARES), ""])
        rows.append(["all solutions", *_row(result["all"])])
        chosen = "fixed" if result["threshold_split"] == "fixed" else f"chosen on {result['threshold_split']}"
        title = f"ProcessBench, % (95% interval); threshold {result['threshold']:.4f}, {chosen}"
        header = ["subset", "found first error", "right solutions kept", "F1", "solutions"]
        return [
            PlotTable(title, header, rows),
            detection_table(result),
        ]

    def plots(self, result: dict) -> list[Plot]:
        """F1 against the threshold, and the reliability diagram."""
        curve = [row for row in result["threshold_curve"] if row["f1"] is not None]
        if not curve:
            return calibration_plots(result)
        lines = {"F1": "f1", "on solutions with an error": "error_accuracy", "on right ones": "correct_accuracy"}
        plot = Plot(
            title="Threshold",
            caption="All reported solutions. Only the marked threshold was chosen without them.",
            x_name="a step below this score is called wrong",
            y_name="accuracy, F1",
            curves=[PlotCurve(label, [(row["threshold"], row[key]) for row in curve]) for label, key in lines.items()],
            mark=(result["threshold"], "used"),
            dots=False,
        )
        return [plot, *calibration_plots(result)]


def _figures(predictions: Sequence[int | None], errors: Sequence[int], groups: Sequence[str], seed: int) -> dict:
    """The shares of `error_f1` with their intervals over questions, and the number of solutions."""
    measures = error_f1(predictions, errors)
    wrong = np.array([error != NO_ERROR for error in errors], dtype=float)
    hit = np.array([prediction == error for prediction, error in zip(predictions, errors, strict=True)], dtype=float)
    columns = sums_by_question(groups, hit * wrong, wrong, hit * (1 - wrong), 1 - wrong)
    statistics = {
        "error_accuracy": lambda sums: sums[:, 0] / sums[:, 1],
        "correct_accuracy": lambda sums: sums[:, 2] / sums[:, 3],
        "f1": lambda sums: harmonic_mean(sums[:, 0] / sums[:, 1], sums[:, 2] / sums[:, 3]),
    }
    intervals = {
        name: interval_of_sums(columns, statistic, seed=seed) if measures[name] is not None else None
        for name, statistic in statistics.items()
    }
    return measures | {"solutions": len(errors), "intervals": intervals}


def _threshold_curve(scores: Sequence[StepScores], errors: Sequence[int]) -> list[dict]:
    """The measures at 51 thresholds between the lowest and the highest score."""
    values = [score for row in scores for score in row if score is not None]
    if not values:
        return []
    return [
        {"threshold": float(t), **error_f1([predicted_error(row, t) for row in scores], errors)}
        for t in np.linspace(min(values), max(values), 51)
    ]


def _row(figures: dict) -> list[str]:
    return [
        *(percent(figures[name], figures["intervals"][name]) for name in SHARES),
        str(figures["solutions"]),
    ]
