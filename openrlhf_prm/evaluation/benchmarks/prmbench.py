"""PRMBench (arXiv:2501.03124): tell the right steps from the wrong ones in solutions with an injected error."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from openrlhf_prm.data.rows import read_jsonl
from openrlhf_prm.evaluation.benchmarks.benchmark import BenchmarkSolution, MeasureOptions, ReadOptions, StepScores
from openrlhf_prm.evaluation.benchmarks.error_detection import calibration_plots, detection_measures, detection_table
from openrlhf_prm.evaluation.benchmarks.rows import source_files, steps_of, text_of
from openrlhf_prm.evaluation.benchmarks.threshold_split import check_split, is_tuning
from openrlhf_prm.evaluation.plots import Plot, PlotTable, percent
from openrlhf_prm.measures.intervals import interval_of_sums, mean, sums_by_question
from openrlhf_prm.measures.steps import prm_score
from openrlhf_prm.measures.thresholds import step_threshold

# Classification in the data -> the paper's category, in the paper's order. The last one has no wrong steps.
CATEGORIES = {
    "redundency": ("simplicity", "non-redundancy"),
    "circular": ("simplicity", "non-circular logic"),
    "counterfactual": ("soundness", "empirical soundness"),
    "step_contradiction": ("soundness", "step consistency"),
    "domain_inconsistency": ("soundness", "domain consistency"),
    "confidence": ("soundness", "confidence invariance"),
    "missing_condition": ("sensitivity", "prerequisite sensitivity"),
    "deception": ("sensitivity", "deception resistance"),
    "multi_solutions": ("sensitivity", "multi-solution consistency"),
}
PUBLISHED_THRESHOLD = 0.5
SCORES = ("prm_score", "f1", "negative_f1")


class PRMBench:
    """Per category (the `classification` of a row): PRMScore, the mean of F1 and negative F1 over its steps, where a
    step is judged right if its score is above the threshold, 0.5 as published unless the flags say otherwise.

    As in the published evaluation, the modified solutions alone are scored, redundant and circular steps count as
    wrong, numbers of error steps beyond the last step are passed over, and of rows with the same category and `idx` the
    first one counts. Steps without a score count as judged wrong.
    """

    title = "PRMBench"
    source = "arXiv:2501.03124"
    reads = frozenset({"eval.threshold", "eval.threshold_split"})
    default_split: str | None = None

    def read(self, path: Path, options: ReadOptions) -> list[BenchmarkSolution]:
        """Rows have `modified_question`, `modified_process`, `error_steps` (from 1), `classification` and `idx`."""
        solutions: dict[str, BenchmarkSolution] = {}
        taken: dict[str, int] = {}
        for file in source_files(path, [".jsonl"]):
            for number, row in read_jsonl(file):
                where = f"{file} line {number}"
                subset = text_of(row, "classification", where)
                if subset not in CATEGORIES:
                    raise ValueError(f"{where}: classification {subset!r} is none of {', '.join(CATEGORIES)}")
                if taken.get(subset, 0) == options.max_samples:
                    continue
                taken[subset] = taken.get(subset, 0) + 1
                steps = steps_of(row, "modified_process", where)
                wrong = row.get("error_steps")
                if not isinstance(wrong, list) or not all(isinstance(index, int) and index > 0 for index in wrong):
                    raise ValueError(f"{where}: 'error_steps' must be a list of step numbers from 1, got {wrong!r}")
                group = str(row.get("idx", where))
                solutions.setdefault(
                    f"{subset}_{group}",
                    BenchmarkSolution(
                        id=f"{subset}_{group}",
                        subset=subset,
                        group=group,
                        question=text_of(row, "modified_question", where),
                        steps=steps,
                        step_labels=[int(index not in wrong) for index in range(1, len(steps) + 1)],
                    ),
                )
        return list(solutions.values())

    def check(self, solutions: Sequence[BenchmarkSolution], options: MeasureOptions) -> str | None:
        """Choosing a threshold needs right and wrong steps."""
        split = check_split(solutions, options, self.default_split)
        if split is not None:
            labels = {label for solution in solutions if is_tuning(solution, split) for label in solution.step_labels}
            if len(labels) < 2:
                raise ValueError(f"--eval.threshold_split {split}: choosing a threshold needs right and wrong steps")
        return split

    def measure(
        self, solutions: Sequence[BenchmarkSolution], scores: Sequence[StepScores], options: MeasureOptions
    ) -> dict:
        """See the class. `overall` pools the steps of all categories, `average` is the mean over the categories."""
        split = self.check(solutions, options)
        tuning = [is_tuning(solution, split) for solution in solutions]
        if split is None:
            threshold = PUBLISHED_THRESHOLD if options.threshold is None else options.threshold
        else:
            chosen = [pair for *pair, is_chosen in zip(solutions, scores, tuning, strict=True) if is_chosen]
            threshold = _chosen_threshold(chosen, split)
        reported = [index for index, is_chosen in enumerate(tuning) if not is_chosen]
        counts = {index: _counts(scores[index], solutions[index].step_labels, threshold) for index in reported}

        def figures(indices: list[int]) -> dict:
            groups = [solutions[index].group for index in indices]
            return _figures(np.array([counts[index] for index in indices]), groups, options.seed)

        names = [name for name in CATEGORIES if any(solutions[index].subset == name for index in reported)]
        categories = {name: figures([i for i in reported if solutions[i].subset == name]) for name in names}
        dimensions: dict[str, list[float]] = {}
        for name in names:
            if categories[name]["prm_score"] is not None:
                dimensions.setdefault(CATEGORIES[name][0], []).append(categories[name]["prm_score"])
        return {
            "threshold": threshold,
            "threshold_split": split or "fixed",
            "tuning_solutions": sum(tuning),
            "unscored_solutions": sum(None in row for row in scores),
            "categories": categories,
            "dimensions": {name: mean(values) for name, values in dimensions.items()},
            "average": mean([value for values in dimensions.values() for value in values]),
            "overall": figures(reported),
            **detection_measures([solutions[i] for i in reported], [scores[i] for i in reported], options.seed),
        }

    def tables(self, result: dict) -> list[PlotTable]:
        """Figures per category, and the measures of error detection."""
        rows = [[CATEGORIES[name][1], *_row(figures)] for name, figures in result["categories"].items()]
        for name, value in result["dimensions"].items():
            rows.append([f"mean of {name}", percent(value), "", "", ""])
        rows.append(["mean of categories", percent(result["average"]), "", "", ""])
        rows.append(["all steps together", *_row(result["overall"])])
        chosen = "fixed" if result["threshold_split"] == "fixed" else f"chosen on {result['threshold_split']}"
        title = f"PRMBench, % (95% interval); threshold {result['threshold']:.4f}, {chosen}"
        return [
            PlotTable(title, ["category", "PRMScore", "F1", "negative F1", "solutions"], rows),
            detection_table(result),
        ]

    def plots(self, result: dict) -> list[Plot]:
        """The reliability diagram."""
        return calibration_plots(result)


def _chosen_threshold(chosen: Sequence[tuple[BenchmarkSolution, StepScores]], split: str) -> float:
    pairs = [
        (score, label == 1)
        for solution, row in chosen
        for score, label in zip(row, solution.step_labels, strict=True)
        if score is not None
    ]
    try:
        return step_threshold([score for score, _ in pairs], [right for _, right in pairs])
    except ValueError as error:
        raise ValueError(f"--eval.threshold_split {split}: {error}") from None


def _figures(counts: np.ndarray, groups: Sequence[str], seed: int) -> dict:
    """The measures of some solutions, (N, 4) `_counts`, with intervals over questions."""
    measures = prm_score(*counts.sum(axis=0))
    columns = sums_by_question(groups, *counts.T)
    # As PRMBench's own tables: a category without wrong steps has no negative F1, and is reported by its F1.
    measure_of = dict(zip(SCORES, SCORES, strict=True))
    if not counts[:, [1, 3]].any():
        measure_of["prm_score"] = "f1"
    values = {name: float(measures[measure]) for name, measure in measure_of.items()}
    intervals = {
        name: interval_of_sums(columns, lambda sums, measure=measure: prm_score(*sums.T)[measure], seed=seed)
        for name, measure in measure_of.items()
    }
    return {
        **{name: None if np.isnan(value) else value for name, value in values.items()},
        "intervals": intervals,
        "solutions": len(counts),
        "steps": int(counts.sum()),
    }


def _counts(scores: StepScores, labels: Sequence[int], threshold: float) -> tuple[int, int, int, int]:
    """True positives, false positives, false negatives, true negatives; positive = judged right."""
    pairs = [(score is not None and score > threshold, label == 1) for score, label in zip(scores, labels, strict=True)]
    return tuple(pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False)))


def _row(figures: dict) -> list[str]:
    return [
        *(percent(figures[name], figures["intervals"][name]) for name in SCORES),
        str(figures["solutions"]),
    ]
