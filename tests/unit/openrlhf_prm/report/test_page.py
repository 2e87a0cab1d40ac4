"""The report page: nothing of a model gets through unescaped, nothing is loaded, and missing parts are said."""

import json
import os
import re

import pytest

from openrlhf_prm.cli import report
from openrlhf_prm.evaluation.responses import GradedResponse, write_samples
from openrlhf_prm.evaluation.summary import summarize
from openrlhf_prm.report.charts import Line, interval_chart, line_chart, moving_mean, ticks
from openrlhf_prm.report.page import render_report
from openrlhf_prm.report.run_folder import read_run, read_scalars
from openrlhf_prm.report.solutions import choose, render_step

ATTACK = "<script>alert(1)</script><img src=https://example.com/x onerror=alert(2)>"


def response(index, sample, correct, steps=("a step",), text="text", scores=0.9, check=True, question="1+1?"):
    return GradedResponse(
        index=index,
        kind="greedy" if sample is None else "sample",
        sample=sample,
        question=question,
        label="2",
        response=text,
        answer="2" if correct else None,
        correct=correct,
        steps=list(steps),
        step_scores=None if scores is None else [scores] * len(steps),
        step_checks=None if check is None else [check] * len(steps),
        tokens=5,
        truncated=False,
    )


def stage(correct, **options):
    return [response(i, sample, correct[i], **options) for i in range(len(correct)) for sample in (None, 0, 1)]


def write_run(path, stages, **result):
    path.mkdir(exist_ok=True)
    for name, responses in stages.items():
        write_samples(path / f"{name}.samples.jsonl", responses)
        result[name] = summarize(responses)
    (path / "result.json").write_text(json.dumps(result))
    return path


def write_events(folder, series, first=1, name="ppo_1123T00:00"):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / name))
    for tag, values in series.items():
        for update, value in enumerate(values, start=first):
            writer.add_scalar(tag, value, update)
    writer.close()


def test_what_a_model_wrote_is_escaped(tmp_path):
    evil = stage([False, True], steps=[ATTACK], text=ATTACK, question=ATTACK)
    run = write_run(tmp_path / "run", {"before": evil, "after": evil}, command=ATTACK, versions={ATTACK: ATTACK})
    page = render_report(read_run(run))
    assert "<script>alert" not in page and "<img" not in page
    assert page.count("<script>") == 1  # the page's own
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_page_needs_nothing_from_outside(tmp_path):
    run = write_run(tmp_path / "run", {"before": stage([False]), "after": stage([True])}, seed=0)
    page = render_report(read_run(run))
    assert not re.search(r"""(src|href)\s*=|url\(|@import|https?://""", page)
    assert "default-src 'none'" in page


def test_headline_and_table(tmp_path):
    stages = {
        "before": stage([False, False, True, False]),
        "after": stage([True, True, True, False]),
        "stock": stage([True, False, True, False]),
    }
    seconds = {"train_ppo": 12.5, "evaluate": 4.5, "total": 17.0}
    page = render_report(read_run(write_run(tmp_path / "run", stages, seconds=seconds, seed=7)))
    assert "Mean accuracy rose from 25.0% to 75.0%" in page and "on 4 questions, 2 samples each" in page
    assert "+50.0 points" in page and "Stock OpenRLHF, with the outcome reward alone, reached <b>50.0%</b>" in page
    assert "train ppo" in page and "12.5 s" in page and "17 s in all" in page
    assert "wrong before, right after" in page and "right before, wrong after" not in page


def test_where_the_numbers_of_samples_differ_the_headline_is_greedy(tmp_path):
    one_sample = [r for r in stage([False, True]) if r.sample != 1]
    page = render_report(read_run(write_run(tmp_path / "run", {"before": one_sample, "after": stage([True, True])})))
    assert "Greedy accuracy rose from 50.0% to 100.0%" in page


def test_a_loss_is_called_one(tmp_path):
    run = write_run(tmp_path / "run", {"before": stage([True]), "after": stage([False])})
    page = render_report(read_run(run))
    assert "fell from 100.0% to 0.0%" in page and "−100.0 points" in page


def test_curves_and_absent_series(tmp_path):
    run = write_run(tmp_path / "run", {"before": stage([False]), "after": stage([True])})
    without = render_report(read_run(run))
    assert "No curves" in without and "tensorboard/" in without

    logged = {"train/rollout/reward_mean": [0.2, 0.4], "train/vllm_kl": [1e-4, float("nan")]}
    write_events(run / "tensorboard", logged)
    page = render_report(read_run(run))
    assert "Accuracy of rollouts" in page and "KL between engines" in page
    assert "Not logged: Process reward, Step score" in page
    assert page.count('<svg class="chart"') == 2
    assert "stock OpenRLHF" not in page and "Stock OpenRLHF" not in page


def test_of_several_event_folders_the_last_is_read(tmp_path):
    write_events(tmp_path / "old", {"train/reward": [0.1]})
    for file in (tmp_path / "old").rglob("events*"):
        os.utime(file, (1, 1))
    write_events(tmp_path / "new", {"train/reward": [0.5, 0.6]})
    assert read_scalars(tmp_path)["train/reward"] == [(1, 0.5), (2, pytest.approx(0.6))]
    assert read_scalars(tmp_path / "absent") == {}


def test_a_resumed_run_keeps_its_updates_from_before(tmp_path):
    """Killed after update 5, its last checkpoint after update 3: what is trained again replaces what was."""
    write_events(tmp_path, {"train/kl": [1, 2, 3, 4, 5], "train/return": [7]}, name="ppo_1123T00:00")
    for file in tmp_path.rglob("events*"):
        os.utime(file, (1, 1))
    write_events(tmp_path, {"train/kl": [40, 50]}, first=4, name="ppo_1124T00:00")
    scalars = read_scalars(tmp_path)
    assert scalars == {"train/kl": [(1, 1), (2, 2), (3, 3), (4, 40), (5, 50)], "train/return": [(1, 7)]}


LIVE = {
    "train/process/accuracy": [0.25, 0.5],
    "train/process/step_score": [0.5, 0.625],
    "train/progress/share": [0.1, 0.2],
    "train/timing/generation": [30, 20],
}


@pytest.mark.parametrize("where", ["", "tensorboard"])
def test_a_run_that_goes_on_is_shown_as_far_as_it_is(tmp_path, where, capsys):
    write_events(tmp_path / where, LIVE | {"train/progress/seconds_left": [90]})
    output = tmp_path / "page.html"
    assert report.main(["--run", str(tmp_path), "--output", str(output)]) == 0
    page = output.read_text()
    assert "Update 2 of 10" in page and "0:01:30" in page and "50.0%" in page and "25.0% at update 1" in page
    assert "<td>rollout</td><td>20.0 s</td>" in page and page.count('<svg class="chart"') == 2
    assert "refresh" not in page


def test_watching_ends_with_the_result(tmp_path, monkeypatch, capsys):
    run, pages = tmp_path / "run", []
    write_events(run / "tensorboard", LIVE)
    output = tmp_path / "page.html"

    def sleep(seconds):
        assert seconds == 60
        pages.append(output.read_text())
        if len(pages) == 2:
            write_run(run, {"before": stage([False]), "after": stage([True])})

    monkeypatch.setattr(report.time, "sleep", sleep)
    assert report.main(["--run", str(run), "--output", str(output), "--watch", "60"]) == 0
    assert len(pages) == 2 and all('http-equiv="refresh" content="60"' in page for page in pages)
    assert "refresh" not in output.read_text() and "Mean accuracy" in output.read_text()


def test_watching_ends_with_ctrl_c(tmp_path, monkeypatch, capsys):
    write_events(tmp_path, LIVE)

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(report.time, "sleep", interrupted)
    assert report.main(["--run", str(tmp_path), "--output", str(tmp_path / "page.html"), "--watch", "5"]) == 0
    assert json.loads(capsys.readouterr().out)["output"].endswith("page.html")


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--watch", "0"], "--watch: must be at least 1"), ([], "neither result.json nor TensorBoard")],
)
def test_wrong_flags_and_empty_folders_are_named(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        report.main(["--run", str(tmp_path), *flags])
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("steps", [(), ("one",)])
@pytest.mark.parametrize(("scores", "check"), [(0.9, True), (None, None), (-3.0, False), (7.0, None)])
def test_few_steps_and_odd_scores(tmp_path, steps, scores, check):
    both = stage([True], steps=steps, scores=scores, check=check)
    page = render_report(read_run(write_run(tmp_path / "run", {"before": both, "after": both})))
    assert ("no step" in page) == (not steps)


def test_samples_may_be_missing(tmp_path, capsys):
    run = write_run(tmp_path / "run", {"before": stage([False]), "after": stage([True])})
    (run / "before.samples.jsonl").unlink()
    assert report.main(["--run", str(run), "--output", str(tmp_path / "deep" / "report.html")]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["missing"] == ["before.samples.jsonl", "tensorboard/"]
    page = (tmp_path / "deep" / "report.html").read_text()
    assert len(page.encode()) == said["bytes"]
    assert "Not in the run folder: before.samples.jsonl" in page and "step by step" not in page


def test_a_malformed_samples_file_is_named(tmp_path, capsys):
    run = write_run(tmp_path / "run", {"before": stage([False]), "after": stage([True])})
    (run / "after.samples.jsonl").write_text("{}\n")
    with pytest.raises(SystemExit) as ended:
        report.main(["--run", str(run)])
    assert ended.value.code == 2
    assert "after.samples.jsonl line 1" in capsys.readouterr().err


def test_choose_counts_every_question_and_shows_the_first():
    before, after = [False] * 6 + [True], [True] * 6 + [False]
    chosen, counts = choose({"before": stage(before), "after": stage(after)})
    assert dict(chosen)["wrong before, right after"] == [0, 1, 2, 3]
    assert dict(chosen)["right before, wrong after"] == [6]
    assert counts["wrong before, right after"] == 6 and counts["right both times"] == 0


def test_render_step():
    assert render_step("x", None, None) == '<div class="step"><span>x</span></div>'
    assert 'class="step high" style="--w:38%"' in render_step("x", 1.0, True)
    assert 'class="step low" style="--w:38%"' in render_step("x", 0.0, False)
    assert 'style="--w:4%"' in render_step("x", 0.5, None)


def test_ticks_and_moving_mean():
    assert ticks(0.0, 1.0) == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert ticks(3.1, 8.9) == pytest.approx([2, 4, 6, 8, 10])
    assert moving_mean([0, 3, 6, 3], 3) == [1.5, 3, 4, 4.5]


def test_charts_of_one_point_of_a_constant_and_of_nothing():
    assert line_chart([Line("a", "x", [])], str) == ""
    assert line_chart([Line("a", "x", [(1, float("inf"))])], str) == ""
    assert "<circle" in line_chart([Line("a", "x", [(1, 0.5)])], str)
    assert "<path" in line_chart([Line("a", "x", [(1, 0.0), (2, 0.0)])], str)
    assert interval_chart([(0.5, None, "x")]).count("whisker") == 0
