"""The page of long chains: which are shown, how parts and the tree are marked, and rows that are none."""

import json
import re

import pytest
from scripted_roles import cast, stumbling, written

from openrlhf_prm.cli import view_chains
from openrlhf_prm.data.questions import Question
from openrlhf_prm.generation.chains.critics import ExactCritic
from openrlhf_prm.generation.chains.deliberate import Deliberate, DeliberateOptions
from openrlhf_prm.report.chains import render_chains, sample_chains
from openrlhf_prm.tasks.arithmetic import check_steps, questions


@pytest.fixture(scope="module")
def rows():
    scheme = Deliberate(DeliberateOptions(tries=4), ExactCritic(check_steps))
    pairs = enumerate(questions("train", 9, seed=6))
    return [written(scheme, Question(str(index), *pair), cast(stumbling(0.4)))[1] for index, pair in pairs]


def test_a_sample_is_the_same_each_time_and_totals_are_the_files(rows):
    some, totals = sample_chains(iter(rows), 3, 0)
    assert sample_chains(iter(rows), 3, 0) == (some, totals) and len(some) == 3
    assert [row["id"] for row in some] == sorted(row["id"] for row in some)
    assert sample_chains(iter(rows), 3, 1)[0] != some and sample_chains(iter(rows), 99, 0)[0] == rows
    assert totals.chains == 9 and totals.tokens == sum(row["tokens"] for row in rows)
    failed = [sum(part["kind"] == "failed" for part in row["chain"]) for row in rows]
    assert (totals.taken_back, totals.with_detours) == (sum(failed), sum(map(bool, failed)))


def test_every_part_and_every_step_is_shown_once(rows):
    for row in rows:
        page = render_chains("c.jsonl", *sample_chains([row], 1, 0))
        assert re.findall(r'<div class="part is-(\w+)">', page) == [part["kind"] for part in row["chain"]]
        tree = re.findall(r'<div class="step ?(\w*)"><span>([^<]*)</span>', page)
        steps = {event["node"]: event for event in row["events"] if event["role"] == "elaborator" and event["node"]}
        assert sorted(text for _, text in tree) == sorted(
            event["text"].replace(">", "&gt;") for event in steps.values()
        )
        kinds = {part["text"].replace(">", "&gt;"): part["kind"] for part in row["chain"]}
        sides = {"failed": "low", "step": "high", "answer": "high"}
        assert all(side == sides[kinds[text]] for side, text in tree)


def test_what_was_left_out_says_why(rows):
    row = {**rows[0], "reasons": ["too_long", "<b>"]}
    page = render_chains("c.jsonl", *sample_chains([row], 1, 0))
    assert "left out: too_long, &lt;b&gt;" in page
    empty = {**rows[0], "chain": [], "events": [], "label": ""}
    page = render_chains("c.jsonl", *sample_chains([empty], 1, 0))
    assert "no chain" in page and "reference none" in page


def test_the_command(tmp_path, capsys, rows):
    source, output = tmp_path / "c.jsonl", tmp_path / "o.html"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert view_chains.main(["--input", str(source), "--output", str(output), "--chains", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["chains"] == 2 and "2 of 9" in output.read_text()


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        ("", [], "holds no chain"),
        ('{"id": "a"}\n', [], "line 1: not a chain, it has no 'question'"),
        ("x\n", [], "line 1: not JSON"),
        ("", ["--chains", "0"], "--chains must be at least 1"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, text, flags, expected):
    source = tmp_path / "c.jsonl"
    source.write_text(text)
    with pytest.raises(SystemExit) as ended:
        view_chains.main(["--input", str(source), "--output", str(tmp_path / "o.html"), *flags])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and expected in error and error.count("\n") == 1
