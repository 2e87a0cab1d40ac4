"""ProcessBench (arXiv:2412.06559): find the first wrong step of a solution, or say that there is none."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from openrlhf_prm.evaluation.benchmarks import benchmark as shared
from openrlhf_prm.evaluation.benchmarks.benchmark import HALF, Item, MeasureOptions, ReadOptions, StepScores
from openrlhf_prm.evaluation.plots import Curve, Plot, PlotTable
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
    has_threshold: bool = True
    default_split: str | None = HALF

    def read(self, path: Path, options: ReadOptions) -> list[Item]:
        """Rows have `id`, `problem`, `steps` and `label`, the index of the first wrong step from 0 or -1."""
        items: dict[str, Item] = {}
        for file in shared.source_files(path, [".json"]):
            for where, row in shared.read_array(file)[: options.max_samples]:
                question = shared.text_of(row, "problem", where)
                steps = shared.steps_of(row, "steps", where)
                label = row.get("label")
                if isinstance(label, bool) or not isinstance(label, int) or not -1 <= label < len(steps):
                    raise ValueError(
                        f"{where}: 'label' must be -1 or the index of one of {len(steps)} steps, got {label!r}"
                    )
                identity = str(row.get("id", where))
                if identity in items:
                    raise ValueError(f"{where}: id {identity!r} stands there twice")
                labels = [1] * len(steps) if label == -1 else [1] * label + [0] + [None] * (len(steps) - label - 1)
                items[identity] = Item(
                    id=identity, subset=file.stem, group=question, question=question, steps=steps, step_labels=labels
                )
        return list(items.values())

    def measure(self, items: Sequence[Item], scores: Sequence[StepScores], options: MeasureOptions) -> dict:
        """See the class. `average` is the mean over the subsets, `all` pools their solutions."""
        split = shared.check_split(items, options, self.default_split)
        errors = [first_error(item.step_labels) for item in items]
        tuning = [shared.is_tuning(item, split) for item in items]
        threshold = options.threshold
        if split is not None:
            chosen = [index for index, is_tuning in enumerate(tuning) if is_tuning]
            try:
                threshold = error_threshold([scores[i] for i in chosen], [errors[i] for i in chosen])
            except ValueError as error:
                raise ValueError(f"--eval.threshold_split {split}: {error}") from None
        reported = [index for index, is_tuning in enumerate(tuning) if not is_tuning]
        names = list(dict.fromkeys(items[index].subset for index in reported))
        predictions = [predicted_error(row, threshold) for row in scores]

        def figures(indices: list[int]) -> dict:
            found = [predictions[i] for i in indices]
            truth = [errors[i] for i in indices]
            result = error_f1(found, truth) | {"solutions": len(indices)}
            wrong = np.array([error != NO_ERROR for error in truth], dtype=float)
            hit = np.array([a == b for a, b in zip(found, truth, strict=True)], dtype=float)
            columns = sums_by_question(
                [items[i].group for i in indices], hit * wrong, wrong, hit * (1 - wrong), 1 - wrong
            )
            shares = {
                "error_accuracy": lambda sums: sums[:, 0] / sums[:, 1],
                "correct_accuracy": lambda sums: sums[:, 2] / sums[:, 3],
                "f1": lambda sums: harmonic_mean(sums[:, 0] / sums[:, 1], sums[:, 2] / sums[:, 3]),
            }
            result["intervals"] = {
                name: interval_of_sums(columns, share, seed=options.seed) if result[name] is not None else None
                for name, share in shares.items()
            }
            return result

        subsets = {name: figures([i for i in reported if items[i].subset == name]) for name in names}
        known = all(each["f1"] is not None for each in subsets.values())
        return {
            "threshold": threshold,
            "threshold_split": split or "fixed",
            "tuning_solutions": sum(tuning),
            "unscored_solutions": sum(None in row for row in scores),
            "subsets": subsets,
            "average": {name: mean([each[name] for each in subsets.values()]) for name in SHARES} if known else None,
            "all": figures(reported),
            **shared.detection_measures([items[i] for i in reported], [scores[i] for i in reported], options.seed),
            "threshold_curve": self._curve([scores[i] for i in reported], [errors[i] for i in reported]),
        }

    def _curve(self, scores: Sequence[StepScores], errors: Sequence[int]) -> list[dict]:
        """The measures at 51 thresholds between the lowest and the highest score."""
        values = [score for row in scores for score in row if score is not None]
        if not values:
            return []
        at = np.linspace(min(values), max(values), 51)
        return [{"threshold": float(t), **error_f1([predicted_error(row, t) for row in scores], errors)} for t in at]

    def tables(self, result: dict) -> list[PlotTable]:
        """Figures per subset, and the measures of"""
        rows = [[name, *_row(each)] for name, each in result["subsets"].items()]
        if result["average"] and len(rows) > 1:
            rows.append(["average", *(shared.percent(result["average"][name]) for name in SHARES), ""])
        rows.append(["all solutions", *_row(result["all"])])
        chosen = "fixed" if result["threshold_split"] == "fixed" else f"chosen on {result['threshold_split']}"
        title = f"ProcessBench, % (95% interval); threshold {result['threshold']:.4f}, {chosen}"
        header = ["subset", "found first error", "right solutions kept", "F1", "solutions"]
        return [
            PlotTable(title, header, rows),
            PlotTable("Steps up to the first error", ["measure", "value"], shared.detection_rows(result)),
        ]

    def plots(self, result: dict) -> list[Plot]:
        """F1 against the threshold, and the reliability diagram."""
        curve = [row for row in result["threshold_curve"] if row["f1"] is not None]
        if not curve:
            return shared.calibration_plots(result)
        lines = {"F1": "f1", "on solutions with an error": "error_accuracy", "on right ones": "correct_accuracy"}
        plot = Plot(
            title="Threshold",
            caption="All reported solutions. Only the marked threshold was chosen without them.",
            x_name="a step below this score is called wrong",
            y_name="accuracy, F1",
            curves=[Curve(label, [(row["threshold"], row[key]) for row in curve]) for label, key in lines.items()],
            mark=(result["threshold"], "used"),
            dots=False,
        )
        return [plot, *shared.calibration_plots(result)]


def _row(figures: dict) -> list[str]:
    return [
        *(shared.percent(figures[name], figures["intervals"][name]) for name in SHARES),
        str(figures["solutions"]),
    ]
