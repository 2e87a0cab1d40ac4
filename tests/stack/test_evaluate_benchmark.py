"""Benchmarks on real vLLM engines, as a user runs them: a random PRM in the process and behind a server, killed and
resumed; best-of-N on the samples of a policy evaluation.
"""

import json
from pathlib import Path

import pytest
from commands import run, summary_of
from killed_command import fill_disk_midway, kill_midway
from servers import running_server, until_ready
from tiny_prm import Reference, save_tiny_prm, worst

from openrlhf_prm.data.ledger import balances

pytestmark = pytest.mark.stack

EVALUATE = "openrlhf_prm.cli.evaluate"


def evaluate(*flags: object) -> dict:
    return summary_of(EVALUATE, *flags)


def process_rows(count: int, steps: int) -> list[dict]:
    return [
        {
            "id": f"p-{index}",
            "problem": f"Problem {index // 2}: what is {index}+{index}?",
            "steps": [f"{index}+{index} is {index + at}, I think.\nOr not." for at in range(steps)],
            "label": index % (steps + 1) - 1,
        }
        for index in range(count)
    ]


def scores_in(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def prm(tmp_path_factory) -> Path:
    return save_tiny_prm(tmp_path_factory.mktemp("model") / "prm")


@pytest.fixture(scope="module")
def server(prm, tmp_path_factory):
    serve = ["vllm_prm.serve", "serve", str(prm), "--dtype", "float32", "--enforce-eager", "--max-model-len", "512"]
    with running_server(serve, tmp_path_factory.mktemp("server") / "log") as url:
        yield until_ready(url)


def test_processbench_killed_and_resumed_and_by_a_server(prm, server, tmp_path):
    (tmp_path / "data").mkdir()
    rows = process_rows(240, 3)
    (tmp_path / "data" / "small.json").write_text(json.dumps(rows))
    common = ["--benchmark", "processbench", "--data.input", tmp_path / "data"]
    output = tmp_path / "offline.json"
    flags = [*common, "--prm.model_name_or_path", prm, "--prm.dtype", "float32"]
    flags += ["--eval.output", output, "--eval.batch_size", 2]

    kept = tmp_path / "offline.json.scores.jsonl"
    kill_midway(kept, 3, tmp_path / "log", EVALUATE, *flags)
    before = kept.read_text()
    assert 3 < len(before.splitlines()) < 240
    assert not output.exists()

    result = evaluate(*flags, "--eval.report", tmp_path / "report.html")
    assert kept.read_text().startswith(before) and len(scores_in(kept)) == 240
    assert result == json.loads(output.read_text())
    assert result["solutions"] == 240 == result["tuning_solutions"] + result["all"]["solutions"]
    assert 0 <= result["all"]["f1"] <= 1 and 0 < result["first_error_auc"] < 1
    assert "<svg" in (tmp_path / "report.html").read_text()

    # What was scored is what a plain forward pass gives.
    reference = Reference(prm)
    scored = {tuple(row["step_scores"]) for row in scores_in(kept)}
    for row in rows[::80]:
        expected = reference(row["problem"], row["steps"])
        assert min(worst(list(scores), expected) for scores in scored) < 1e-4

    assert [each.faults for each in balances(tmp_path)] == [[], []], "solutions, and their steps"

    kept = tmp_path / "server.json.scores.jsonl"
    of_server = [*common, "--prm.url", server, "--eval.output", tmp_path / "server.json"]
    told = fill_disk_midway(kept, 3, EVALUATE, *of_server, "--eval.batch_size", 2)
    assert f"error: {kept} cannot be written: File too large; once there is room" in told
    by_server = evaluate(*of_server)
    assert by_server["threshold"] == pytest.approx(result["threshold"], abs=1e-4)
    assert by_server["all"]["f1"] == pytest.approx(result["all"]["f1"], abs=0.02)


def test_prmbench_and_best_of_n(server, tmp_path):
    data = tmp_path / "circular.jsonl"
    rows = [
        {
            "idx": str(index),
            "modified_question": f"What is {index}?",
            "modified_process": ["It is a number.", f"Namely {index}.", "Done."],
            "error_steps": [index % 3 + 1],
            "classification": "circular",
        }
        for index in range(12)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = ["--prm.url", server]
    result = evaluate("--benchmark", "prmbench", "--data.input", data, *model, "--eval.output", tmp_path / "p.json")
    assert result["categories"]["circular"]["steps"] == 36 and result["threshold"] == 0.5
    assert 0 <= result["overall"]["prm_score"] <= 1

    samples = tmp_path / "samples.jsonl"
    rows = [
        {"question": f"What is {q}?", "label": str(q), "response": f"Let me see.\nAnswer: {q + n % 2}"}
        for q in range(4)
        for n in range(4)
    ]
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = evaluate("--benchmark", "best_of_n", "--data.input", samples, *model, "--eval.output", tmp_path / "b.json")
    curves = result["curves"]
    assert result["questions"] == 4 and list(curves["mean"]) == ["1", "2", "4"]
    assert curves["mean"]["4"]["accuracy"] == 0.5 and curves["pass"]["4"]["accuracy"] == 1.0
    # Equal texts get equal scores, so a question's best answer is right or wrong as a whole.
    assert curves["best_of_n/min"]["4"]["accuracy"] in (0.0, 0.25, 0.5, 0.75, 1.0)


def test_a_solution_beyond_the_context_ends_with_one_line(prm, server, tmp_path):
    data = tmp_path / "long.json"
    data.write_text(json.dumps([*process_rows(2, 2), {"id": "x", "problem": "?", "steps": ["a" * 600], "label": -1}]))
    flags = ["--benchmark", "processbench", "--data.input", data, "--eval.output", tmp_path / "r.json"]
    flags += ["--eval.threshold", "0.5"]
    done = run(EVALUATE, *flags, "--prm.model_name_or_path", prm)
    assert done.returncode == 2 and "--eval.truncate" in done.stderr.splitlines()[-1]
    result = evaluate(*flags, "--prm.url", server, "--eval.truncate", "--eval.scores", tmp_path / "cut.jsonl")
    assert result["unscored_solutions"] == 1
