"""Benchmarks of PRMs: reading, hand-worked results, and the command around them with a scorer that computes nothing."""

import json
from pathlib import Path

import pytest

from openrlhf_prm.cli import evaluate
from openrlhf_prm.cluster import nodes
from openrlhf_prm.evaluation import prm_source
from openrlhf_prm.evaluation.benchmarks import BENCHMARKS, MeasureOptions, ReadOptions
from openrlhf_prm.evaluation.benchmarks.threshold_split import in_half
from vllm_prm.errors import ServiceUnavailableError

FIXED = MeasureOptions(threshold=0.5)
OPTIONS = ReadOptions(answer_checker=lambda response, label: response.endswith(label))


def process_row(identity, label, steps=3, problem=None):
    return {
        "id": identity,
        "problem": problem or f"{identity}?",
        "steps": [f"s{i}" for i in range(steps)],
        "label": label,
    }


def prm_row(identity, category, wrong, steps=3):
    return {
        "idx": identity,
        "modified_question": f"{identity}?",
        "modified_process": [f"s{i}" for i in range(steps)],
        "error_steps": wrong,
        "classification": category,
    }


def write_array(path, *rows):
    path.write_text(json.dumps(rows))
    return path


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# -- ProcessBench ----------------------------------------------------------------------------------------------------


def test_processbench_by_hand(tmp_path):
    write_array(tmp_path / "easy.json", process_row("a", 1), process_row("b", -1))
    write_array(tmp_path / "hard.json", process_row("c", 0), process_row("d", 2), process_row("e", -1))
    benchmark = BENCHMARKS["processbench"]
    items = benchmark.read(tmp_path, OPTIONS)
    assert [item.step_labels for item in items] == [[1, 0, None], [1, 1, 1], [0, None, None], [1, 1, 0], [1, 1, 1]]
    scores = [[0.9, 0.1, 0.9], [0.9, 0.8, 0.7], [0.2, 0.9, 0.9], [0.9, 0.3, 0.1], [0.6, None, 0.9]]
    result = benchmark.measure(items, scores, FIXED)
    easy, hard = result["subsets"].values()
    assert (easy["error_accuracy"], easy["correct_accuracy"], easy["f1"], easy["solutions"]) == (1.0, 1.0, 1.0, 2)
    # Of two errors one is found at its place; the right solution has a step without a score, which is never right.
    assert (hard["error_accuracy"], hard["correct_accuracy"], hard["f1"]) == (0.5, 0.0, 0.0)
    assert result["average"] == {"error_accuracy": 0.75, "correct_accuracy": 0.5, "f1": 0.5}
    assert result["all"]["error_accuracy"] == pytest.approx(2 / 3) and result["unscored_solutions"] == 1
    # Right steps 0.9 | 0.9 0.8 0.7 | 0.9 0.3 | 0.6 0.9 against first errors 0.1, 0.2, 0.1: all above.
    assert result["first_error_auc"] == 1.0 and result["calibration"]["steps"] == 11
    assert [table.rows[0][0] for table in benchmark.tables(result)][0] == "easy" and len(benchmark.plots(result)) == 2


def test_a_threshold_is_never_chosen_on_what_is_reported(tmp_path):
    rows = [process_row(f"{i}-{label}", label, 1, problem=f"problem {i}") for i in range(20) for label in (0, -1)]
    write_array(tmp_path / "one.json", *rows)
    write_array(tmp_path / "two.json", *[{**row, "id": f"x{row['id']}"} for row in rows])
    benchmark = BENCHMARKS["processbench"]
    items = benchmark.read(tmp_path, OPTIONS)

    def score(item, tuning):
        # Right and wrong are apart at 0.3 where the threshold is chosen, and nowhere near it elsewhere.
        right = item.step_labels == [1]
        return [0.4 if right else 0.2] if tuning else [0.9 if right else 0.8]

    by_subset = benchmark.measure(
        items, [score(i, i.subset == "one") for i in items], MeasureOptions(threshold_split="one")
    )
    assert by_subset["threshold"] == pytest.approx(0.3) and list(by_subset["subsets"]) == ["two"]
    assert (
        by_subset["subsets"]["two"]["correct_accuracy"] == 1.0 and by_subset["subsets"]["two"]["error_accuracy"] == 0.0
    )
    by_half = benchmark.measure(items, [score(i, in_half(i.group)) for i in items], MeasureOptions())
    assert by_half["threshold_split"] == "half" and by_half["threshold"] == pytest.approx(0.3)
    # Both solutions of a problem, in both subsets, fall on one side.
    chosen = sum(in_half(f"problem {i}") for i in range(20))
    assert 0 < chosen < 20 and by_half["tuning_solutions"] == 4 * chosen
    assert by_half["all"]["solutions"] == 80 - 4 * chosen


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({**process_row("a", 0), "label": 3}, "'label' must be -1 or the index of one of 3 steps, got 3"),
        ({**process_row("a", 0), "label": None}, "'label'"),
        ({**process_row("a", 0), "steps": []}, "'steps'"),
        ({**process_row("a", 0), "steps": "one"}, "'steps'"),
        ({**process_row("a", 0), "problem": ""}, "'problem'"),
        ([], "expected a JSON object"),
    ],
)
def test_a_bad_entry_of_processbench(tmp_path, row, expected):
    write_array(tmp_path / "x.json", process_row("ok", -1), row)
    with pytest.raises(ValueError, match="x.json entry 1") as caught:
        BENCHMARKS["processbench"].read(tmp_path, OPTIONS)
    assert expected in str(caught.value)


# -- PRMBench --------------------------------------------------------------------------------------------------------


def test_prmbench_by_hand(tmp_path):
    write_lines(tmp_path / "a.jsonl", prm_row("1", "circular", [2, 9]), prm_row("1", "circular", [1]))
    write_lines(tmp_path / "b.jsonl", prm_row("1", "deception", [3]), prm_row("2", "deception", [1, 2]))
    benchmark = BENCHMARKS["prmbench"]
    items = benchmark.read(tmp_path, OPTIONS)
    assert [item.step_labels for item in items] == [[1, 0, 1], [1, 1, 0], [0, 0, 1]]  # the repeated row is not there
    scores = [[0.9, 0.1, 0.5], [0.9, 0.9, 0.9], [0.1, 0.9, None]]
    result = benchmark.measure(items, scores, MeasureOptions())
    # circular: right judged right, wrong judged wrong, 0.5 is not above 0.5: TP 1, TN 1, FN 1 -> F1 2/3, negative 2/3.
    assert result["categories"]["circular"]["prm_score"] == pytest.approx(2 / 3)
    # deception: TP 2, FP 2, TN 1, FN 1 -> F1 4/7, negative F1 2/5.
    assert result["categories"]["deception"]["prm_score"] == pytest.approx((4 / 7 + 2 / 5) / 2)
    # together: TP 3, FP 2, TN 2, FN 2 -> 6/10 and 4/8.
    assert result["overall"]["prm_score"] == pytest.approx(0.55) and result["overall"]["steps"] == 9
    assert result["average"] == pytest.approx((2 / 3 + (4 / 7 + 2 / 5) / 2) / 2)
    assert result["dimensions"] == {"simplicity": pytest.approx(2 / 3), "sensitivity": pytest.approx(17 / 35)}
    assert len(benchmark.tables(result)) == 2


def test_prmbench_without_a_wrong_step(tmp_path):
    write_lines(tmp_path / "a.jsonl", prm_row("1", "multi_solutions", []))
    benchmark = BENCHMARKS["prmbench"]
    result = benchmark.measure(benchmark.read(tmp_path, OPTIONS), [[0.9, 0.8, 0.7]], MeasureOptions())
    figures = result["categories"]["multi_solutions"]
    assert figures["f1"] == figures["prm_score"] == 1.0 and figures["negative_f1"] is None
    assert result["average"] == 1.0 and result["first_error_auc"] is None
    benchmark.tables(result)
    result = benchmark.measure(benchmark.read(tmp_path, OPTIONS), [[0.9, 0.2, 0.7]], MeasureOptions())
    figures = result["categories"]["multi_solutions"]
    assert figures["prm_score"] == figures["f1"] == pytest.approx(0.8), "as the published tables, not half of it"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"classification": "boredom"}, "boredom"),
        ({"error_steps": [0]}, "error_steps"),
        ({"modified_process": 1}, "modified"),
    ],
)
def test_a_bad_line_of_prmbench(tmp_path, change, expected):
    write_lines(tmp_path / "a.jsonl", {**prm_row("1", "circular", [1]), **change})
    with pytest.raises(ValueError, match="a.jsonl line 1") as caught:
        BENCHMARKS["prmbench"].read(tmp_path, OPTIONS)
    assert expected in str(caught.value)


# -- best-of-N -------------------------------------------------------------------------------------------------------


def response(question, text, **more):
    return {"question": question, "label": "7", "response": text, **more}


def test_best_of_n_by_hand(tmp_path):
    path = write_lines(
        tmp_path / "samples.jsonl",
        response("q", "greedy", kind="greedy"),
        response("q", "a\n\nAnswer: 7", kind="sample"),
        response("q", "b\nAnswer: 8", step_checks=[True, False], steps=["b", "Answer: 8"]),
        response("p", "", correct=False),
        response("p", "Answer: 8"),
    )
    benchmark = BENCHMARKS["best_of_n"]
    items = benchmark.read(path, OPTIONS)
    assert [item.steps for item in items] == [["a", "Answer: 7"], ["b", "Answer: 8"], [], ["Answer: 8"]]
    assert [item.correct for item in items] == [True, False, False, False]
    result = benchmark.measure(items, [[0.9, 0.6], [0.7, 0.7], [], [0.2]], MeasureOptions())
    assert result["questions"] == 2 and result["n"] == 2
    accuracy = {name: {k: at["accuracy"] for k, at in points.items()} for name, points in result["curves"].items()}
    assert accuracy["mean"] == {"1": 0.25, "2": 0.25} and accuracy["pass"] == {"1": 0.25, "2": 0.5}
    # min: 0.6 < 0.7 is wrong; prod: 0.54 > 0.49 is right; last: 0.6 < 0.7; mean: 0.75 > 0.7.
    assert [accuracy[f"best_of_n/{name}"]["2"] for name in ("min", "prod", "last", "mean")] == [0, 0.5, 0, 0.5]
    assert accuracy["weighted_vote/prod"] == {"1": 0.25, "2": 0.5} and accuracy["majority_vote"]["2"] == 0.25
    assert "first_error_auc" not in result  # not every row has checks
    assert len(benchmark.tables(result)) == 1 and len(benchmark.plots(result)) == 2


def test_best_of_n_needs_equal_groups(tmp_path):
    path = write_lines(tmp_path / "x.jsonl", response("q", "7"), response("q", "8"), response("p", "7"))
    benchmark = BENCHMARKS["best_of_n"]
    with pytest.raises(ValueError, match=r"same number of responses; got \[1, 2\]"):
        benchmark.read(path, OPTIONS)


# -- the command -----------------------------------------------------------------------------------------------------


class Scorer:
    """Scores by the step's text, and may be killed after some calls."""

    def __init__(self, calls=10**9):
        self.calls, self.seen = calls, []

    def score(self, items, truncate=False):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        self.seen += items
        return [[0.9 if step != "s1" else 0.2 for step in steps] for _, steps in items]

    def shutdown(self):
        pass


@pytest.fixture
def flags(tmp_path):
    """A PRM folder and data that pass the checks."""
    (tmp_path / "prm").mkdir()
    (tmp_path / "prm" / "config.json").write_text('{"prm": "placeholder"}')
    data = tmp_path / "data"
    data.mkdir()
    write_array(data / "<b>.json", *[process_row(str(i), i % 3 - 1, problem=f"p{i}") for i in range(30)])
    return ["--benchmark", "processbench", "--data.input", str(data), "--prm.model_name_or_path", str(tmp_path / "prm")]


def use(monkeypatch, scorer):
    monkeypatch.setattr("vllm_prm.scorer.StepScorer.from_pretrained", lambda *_, **__: scorer)
    return scorer


def test_a_killed_evaluation_goes_on(flags, tmp_path, capsys, monkeypatch):
    output = str(tmp_path / "out" / "result.json")
    flags += ["--eval.output", output, "--eval.batch_size", "8", "--eval.report", str(tmp_path / "report.html")]
    use(monkeypatch, Scorer(calls=2))
    assert evaluate.main(flags) == 130
    error = capsys.readouterr().err.splitlines()[-1]
    assert "16 scored solutions" in error and not Path(output).exists()
    scorer = use(monkeypatch, Scorer())
    assert evaluate.main(flags) == 0
    assert len(scorer.seen) == 14
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result == json.loads(Path(output).read_text())
    assert result["solutions"] == 30 and result["prm"].endswith("prm")
    # Scores cost nothing the second time, whatever the threshold.
    use(monkeypatch, None)
    assert evaluate.main([*flags, "--eval.threshold", "0.5"]) == 0
    fixed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert fixed["threshold_split"] == "fixed" and fixed["tuning_solutions"] == 0
    page = (tmp_path / "report.html").read_text()
    assert "&lt;b&gt;" in page and "<b>.json" not in page and "<td><b>" not in page
    assert (
        "default-src 'none'" in page
        and page.count("<svg") == 2
        and "http" not in page.split("</style>")[1].replace("http://www.w3.org/", "")
    )
    # A checkpoint that was trained on is another one.
    (tmp_path / "prm" / "config.json").write_text('{"prm": "placeholder", "new": 1}')
    assert "state of the checkpoint" in complaint(capsys, flags)


def test_a_prm_that_the_gpus_cannot_hold_is_refused_before_its_engine_starts(flags, tmp_path, capsys, monkeypatch):
    use(monkeypatch, None)
    monkeypatch.setattr(prm_source, "on_cpu", lambda: False)
    monkeypatch.setattr(nodes, "_local_gpus", lambda: [2.0, 80.0])
    config = {"model_type": "qwen2", "hidden_size": 2048, "num_hidden_layers": 16, "architectures": ["X"]}
    (tmp_path / "prm" / "config.json").write_text(json.dumps(config))
    error = complaint(capsys, [*flags, "--prm.family", "placeholder", "--eval.output", str(tmp_path / "r.json")])
    assert "--prm.gpu_memory_utilization: an engine may take 1.8 GiB of a GPU (0.9 of 2)" in error


def test_a_server_that_fails_costs_what_was_in_hand(flags, tmp_path, capsys, monkeypatch):
    class Failing(Scorer):
        def score(self, items, truncate=False):
            if self.seen:
                raise ServiceUnavailableError("http://prm gave 503 in 6 attempts")
            return super().score(items, truncate)

    use(monkeypatch, Failing())
    assert evaluate.main([*flags, "--eval.output", str(tmp_path / "r.json"), "--eval.batch_size", "8"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "503" in error and "8 scored solutions" in error and not (tmp_path / "r.json").exists()


def complaint(capsys, arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        evaluate.main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--benchmark", "mmlu", "mmlu"),
        ("--data.input", "absent", "absent"),
        ("--data.max_samples", "0", "--data.max_samples"),
        ("--eval.batch_size", "0", "--eval.batch_size"),
        ("--prm.url", "localhost:8000", "give one of"),
        ("--prm.family", "none", "none"),
        ("--prm.family_options", "[", "--prm.family_options"),
        ("--prm.model_name_or_path", "./absent", "./absent"),
        ("--eval.threshold_split", "olympiad", "neither half nor a subset: <b>"),
        ("--eval.threshold_split", "<b>", "the only subset"),
        ("--eval.report", "result.json", "three different files"),
        ("--eval.output", ".", "is a folder"),
    ],
)
def test_a_bad_flag_is_named(flags, tmp_path, capsys, monkeypatch, flag, value, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in complaint(capsys, [*flags, "--eval.output", "result.json", flag, value])


def test_a_threshold_that_cannot_be_chosen_is_said_before_scoring(flags, tmp_path, capsys, monkeypatch):
    """The published files begin with their wrong solutions, so the first N of them may hold nothing else."""
    use(monkeypatch, None)
    rows = [process_row(str(i), 0, problem=f"p{i}") for i in range(20)]
    write_array(tmp_path / "data" / "<b>.json", *rows)
    error = complaint(capsys, [*flags, "--eval.output", str(tmp_path / "r.json")])
    assert "none are without" in error and "--eval.threshold" in error
    write_array(tmp_path / "data" / "<b>.json", *[{**row, "label": -1} for row in rows])
    assert "are without" in complaint(capsys, [*flags, "--eval.output", str(tmp_path / "r.json")])
    data = write_lines(tmp_path / "p.jsonl", *[prm_row(str(i), "multi_solutions", []) for i in range(20)])
    prmbench = [*flags, "--benchmark", "prmbench", "--data.input", str(data), "--eval.threshold_split", "half"]
    assert "right and wrong steps" in complaint(capsys, [*prmbench, "--eval.output", str(tmp_path / "r.json")])


def test_threshold_and_split_exclude_each_other(flags, tmp_path, capsys):
    given = ["--eval.output", str(tmp_path / "r.json"), "--eval.threshold", "0.5", "--eval.threshold_split", "half"]
    assert "exclude each other" in complaint(capsys, [*flags, *given])


@pytest.mark.parametrize(
    ("benchmark", "flag", "value"),
    [
        ("best_of_n", "--eval.threshold", "0.5"),
        ("best_of_n", "--eval.threshold_split", "half"),
        ("processbench", "--data.label_key", "label"),
        ("processbench", "--answers.checker", "math"),
        ("prmbench", "--eval.vote_aggregation", "min"),
    ],
)
def test_a_flag_that_another_benchmark_reads(flags, tmp_path, capsys, benchmark, flag, value):
    given = ["--benchmark", benchmark, "--eval.output", str(tmp_path / "r.json"), flag, value]
    assert f"{flag} means nothing to --benchmark {benchmark}" in complaint(capsys, [*flags, *given])


@pytest.mark.parametrize("flag", [["--prm.dtype", "auto"], ["--prm.enforce_eager"], ["--prm.max_model_len", "64"]])
def test_a_server_has_an_engine_already(flags, tmp_path, capsys, flag):
    model = flags.index("--prm.model_name_or_path")
    server = [*flags[:model], *flags[model + 2 :], "--prm.url", "http://localhost:1"]
    error = complaint(capsys, [*server, "--eval.output", str(tmp_path / "r.json"), *flag])
    assert f"{flag[0]} needs --prm.model_name_or_path" in error


def test_a_key_is_a_servers(flags, tmp_path, capsys):
    error = complaint(capsys, [*flags, "--eval.output", str(tmp_path / "r.json"), "--prm.api_key_env", "KEY"])
    assert "--prm.api_key_env needs --prm.url" in error


def test_a_solution_beyond_the_context_is_one_line(flags, tmp_path, capsys, monkeypatch):
    from vllm_prm.errors import ContextLengthError

    class Short(Scorer):
        def score(self, items, truncate=False):
            raise ContextLengthError("the solution has 9 tokens in 3 steps, the PRM takes 8")

    use(monkeypatch, Short())
    with pytest.raises(SystemExit) as ended:
        evaluate.main([*flags, "--eval.output", str(tmp_path / "r.json")])
    last = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and "the PRM takes 8" in last and "--eval.truncate" in last


def test_plots_keep_their_colours_and_identifiers_apart():
    import re

    from openrlhf_prm.evaluation.plots import Plot, PlotCurve
    from openrlhf_prm.report.drawing import draw

    curves = [PlotCurve(f"<{index}>", [(1, 0.5), (2, 0.6)], [(0.4, 0.6), None]) for index in range(5)]
    drawn = [draw(Plot(title, "", "x", "y", curves, powers=True, mark=(1, "&"))) for title in ("One", "Two")]
    identifiers = [set(re.findall(r'id="([^"]+)"', svg)) for svg in drawn]
    assert not identifiers[0] & identifiers[1]
    for svg, known in zip(drawn, identifiers, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([\w.-]+)', svg)) <= known
        assert "var(--blue)" in svg and "#8a5fb4" in svg and "&lt;4&gt;" in svg and "<metadata" not in svg
