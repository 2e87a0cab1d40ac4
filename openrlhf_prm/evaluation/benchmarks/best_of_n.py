"""Best-of-N and weighted vote: how much a PRM adds by choosing among a policy's sampled responses."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from openrlhf_prm.answers.checkers import extract_answer
from openrlhf_prm.answers.grouping import answer_classes
from openrlhf_prm.data.rows import read_jsonl
from openrlhf_prm.evaluation.benchmarks.benchmark import BenchmarkSolution, MeasureOptions, ReadOptions, StepScores
from openrlhf_prm.evaluation.benchmarks.error_detection import calibration_plots, detection_measures, detection_table
from openrlhf_prm.evaluation.benchmarks.rows import source_files, text_of
from openrlhf_prm.evaluation.plots import Plot, PlotCurve, PlotTable, percent
from openrlhf_prm.measures.choices import best_of_k, pass_at_k, powers_of_two, vote_of_k
from openrlhf_prm.measures.intervals import mean, share_interval
from vllm_prm.aggregation import applicable_aggregations
from vllm_prm.protocol import aggregated
from vllm_prm.splitters import split_text, visible

REFERENCES = {"mean": "one response", "majority_vote": "majority vote", "pass": "any right (pass@N)"}


class BestOfN:
    """Accuracy over N = 1, 2, 4 ... of the response with the best aggregated step scores, and of the vote weighted by
    them, against pass@N and the majority vote of the same responses.

    For each N the expectation over subsets of the sampled responses is taken, so every N uses all of them. Where rows
    carry exact `step_checks`, error detection and calibration are measured too.
    """

    title = "Best-of-N"
    source = "arXiv:2305.20050, arXiv:2312.08935"
    reads = frozenset(
        {"data.input_key", "data.label_key", "answers.checker", "steps.splitter", "eval.vote_aggregation"}
    )
    default_split: str | None = None

    def read(self, path: Path, options: ReadOptions) -> list[BenchmarkSolution]:
        """One JSONL row per response: the question, `response` with or without its `steps` (else as the splitter
        splits it), and `correct`, or the reference answer that the answer checker compares with. Rows with `kind`
        "greedy" are passed over, as `--eval.samples` writes them. Every question needs the same number of responses.
        """
        solutions: list[BenchmarkSolution] = []
        seen: dict[str, int] = {}
        for file in source_files(path, [".jsonl"]):
            for number, row in read_jsonl(file):
                where = f"{file} line {number}"
                if row.get("kind") == "greedy":
                    continue
                solution = self._solution(row, where, file.stem, options)
                if solution.group not in seen and len(seen) == options.max_samples:
                    continue
                seen[solution.group] = seen.get(solution.group, 0) + 1
                solutions.append(replace(solution, id=f"{solution.group}\0{seen[solution.group]}"))
        if len(set(seen.values())) > 1:
            raise ValueError(
                f"{path}: every question needs the same number of responses; got {sorted(set(seen.values()))}"
            )
        return solutions

    def _solution(self, row: dict, where: str, subset: str, options: ReadOptions) -> BenchmarkSolution:
        question = text_of(row, options.input_key, where)
        response = row.get("response")
        if not isinstance(response, str):
            raise ValueError(f"{where}: 'response' must be a text, got {response!r}")
        label, correct = row.get(options.label_key), row.get("correct")
        if correct is None:
            if isinstance(label, bool) or not isinstance(label, str | int | float):
                raise ValueError(f"{where}: needs 'correct', or {options.label_key!r} as a text or a number")
            correct = options.answer_checker(response, str(label))
        steps = row.get("steps")
        if steps is None:
            steps = [step.strip() for step in split_text(response, options.splitter) if visible(step)]
        elif not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
            raise ValueError(f"{where}: 'steps' must be a list of texts")
        checks = row.get("step_checks")
        if checks is not None and (not isinstance(checks, list) or len(checks) != len(steps)):
            raise ValueError(f"{where}: 'step_checks' must have one entry for each of {len(steps)} steps")
        return BenchmarkSolution(
            id=where,
            subset=subset,
            group=f"{question}\0{label}",
            question=question,
            steps=steps,
            step_labels=None if checks is None else [int(bool(check)) for check in checks],
            answer=extract_answer(response),
            correct=bool(correct),
            truncated=bool(row.get("truncated", False)),
        )

    def check(self, solutions: Sequence[BenchmarkSolution], options: MeasureOptions) -> None:
        """There is no threshold."""

    def measure(
        self, solutions: Sequence[BenchmarkSolution], scores: Sequence[StepScores], options: MeasureOptions
    ) -> dict:
        """See the class. `curves` maps a way of choosing to {N: {"accuracy", "interval"}}."""
        groups: dict[str, list[int]] = {}
        for index, solution in enumerate(solutions):
            groups.setdefault(solution.group, []).append(index)
        n = len(next(iter(groups.values())))
        names = applicable_aggregations(score for row in scores for score in row)
        curves: dict[str, dict] = {}
        for k in powers_of_two(n):
            shares: dict[str, list[float]] = {}
            for number, indices in enumerate(groups.values()):
                responses = [(solutions[i], scores[i]) for i in indices]
                for name, value in _accuracies(responses, names, k, options.seed + number).items():
                    shares.setdefault(name, []).append(value)
            for name, values in shares.items():
                interval = share_interval(values, seed=options.seed)
                curves.setdefault(name, {})[str(k)] = {"accuracy": mean(values), "interval": interval}
        result = {
            "questions": len(groups),
            "n": n,
            "vote_aggregation": options.vote_aggregation,
            "unscored_solutions": sum(None in row or not row for row in scores),
            "curves": curves,
        }
        if all(solution.step_labels is not None for solution in solutions):
            result |= detection_measures(solutions, scores, options.seed)
        return result

    def tables(self, result: dict) -> list[PlotTable]:
        """Accuracies over N."""
        names = [*REFERENCES, *(name for name in result["curves"] if "/" in name)]
        sizes = list(result["curves"]["mean"])
        rows = []
        for name in names:
            cells = [percent(point["accuracy"], point["interval"]) for point in result["curves"][name].values()]
            rows.append([REFERENCES.get(name) or _name(name), *cells])
        title = f"{result['questions']} questions, % (95% interval)"
        tables = [PlotTable(title, ["choice", *(f"N={size}" for size in sizes)], rows)]
        if "first_error_auc" in result:
            tables.append(detection_table(result))
        return tables

    def plots(self, result: dict) -> list[Plot]:
        """Best-of-N and votes over N, and the reliability diagram."""

        def curve(name: str, label: str) -> PlotCurve:
            points = result["curves"][name]
            accuracies = [(float(size), point["accuracy"]) for size, point in points.items()]
            return PlotCurve(label, accuracies, [point["interval"] for point in points.values()])

        def plot(title: str, caption: str, curves: list[PlotCurve]) -> Plot:
            return Plot(title, caption, "responses N", "accuracy", curves, powers=True)

        bounds = [curve("pass", REFERENCES["pass"]), curve("majority_vote", REFERENCES["majority_vote"])]
        names = [name for kind, _, name in (curve.partition("/") for curve in result["curves"]) if kind == "best_of_n"]
        best = [curve(f"best_of_n/{name}", f"best by {name}") for name in names]
        vote = result["vote_aggregation"]
        plots = [
            plot("Best-of-N", "Which response the PRM chooses, by aggregation of its step scores.", [*bounds, *best]),
            plot(
                "Weighted vote",
                f"Answers weighted by the {vote} of the step scores of their responses.",
                [*bounds, curve(f"weighted_vote/{vote}", "weighted vote")],
            ),
        ]
        return [*plots, *calibration_plots(result)]


def _accuracies(
    responses: Sequence[tuple[BenchmarkSolution, StepScores]], aggregations: Sequence[str], k: int, seed: int
) -> dict[str, float]:
    """Expected accuracy of each way of choosing among k of one question's responses."""
    correct = [solution.correct for solution, _ in responses]
    answers = answer_classes([solution.answer for solution, _ in responses])
    finished = [not solution.truncated for solution, _ in responses]
    accuracies = {
        "mean": pass_at_k(correct, 1),
        "pass": pass_at_k(correct, k),
        "majority_vote": vote_of_k(answers, [1.0] * len(responses), correct, k, seed=seed),
    }
    for name in aggregations:
        ranked = [aggregated(row, name) for _, row in responses]
        accuracies[f"best_of_n/{name}"] = best_of_k(ranked, correct, k, finished)
        accuracies[f"weighted_vote/{name}"] = vote_of_k(answers, ranked, correct, k, seed=seed)
    return accuracies


def _name(name: str) -> str:
    kind, _, aggregation = name.partition("/")
    return f"{kind.replace('_', ' ').replace('best of n', 'best of N')}, {aggregation}"
