"""Trees of annotated questions: merged from records, and drawn without trusting their text."""

import html
import json
import re

import pytest

from openrlhf_prm.cli import view_labels
from openrlhf_prm.report.trees import render_trees, sample_questions, tree_of


def record(steps, hard_labels, rollouts, right, identity="q", **changes) -> dict:
    values = [r / n if n else None for r, n in zip(right, rollouts, strict=True)]
    return {
        "id": identity,
        "question": "1+1?",
        "label": "2",
        "root": {"right": 5, "rollouts": 8, "visits": 2},
        "steps": steps,
        "mc_values": values,
        "hard_labels": hard_labels,
        "right": right,
        "rollouts": rollouts,
        "visits": [0] * len(steps),
        "correct": all(hard_labels),
        **changes,
    }


SHARED = [
    record(["a", "b", "c"], [1, 1, 0], [4, 0, 8], [2, 0, 0], visits=[3, 0, 0]),
    record(["a", "b", "d"], [1, 1, 1], [4, 0, 0], [2, 0, 0]),
    record(["a", "x"], [1, 0], [4, 0], [2, 0]),
]


def test_equal_first_steps_are_one_node():
    root = tree_of(SHARED)
    assert (root.value, root.right, root.rollouts, root.visits) == (0.625, 5, 8, 2)
    assert list(root.children) == ["a"]
    a = root.children["a"]
    assert (a.value, a.right, a.rollouts, a.visits, list(a.children)) == (0.5, 2, 4, 3, ["b", "x"])
    b = a.children["b"]
    assert b.value is None and not b.first_error and list(b.children) == ["c", "d"]
    c = b.children["c"]
    assert c.first_error and c.hard_label == 0 and c.ends == [False]
    assert b.children["d"].ends == [True] and a.children["x"].first_error


def test_a_wrong_step_after_an_error_is_no_first_error():
    root = tree_of([record(["a", "b"], [0, 0], [2, 0], [0, 0])])
    a = root.children["a"]
    assert a.first_error and not a.children["b"].first_error


def test_the_measured_counts_stand_at_a_shared_node():
    rows = [record(["a", "b"], [1, 1], [0, 0], [0, 0]), record(["a", "c"], [1, 0], [6, 0], [3, 0])]
    assert tree_of(rows).children["a"].rollouts == 6


def test_a_sample_is_the_same_each_time_and_the_totals_are_the_files():
    rows = [record(["a", "b"], [1, 0], [2, 0], [1, 0], identity=f"q{index}") for index in range(50)]
    chosen, totals = sample_questions(rows, 5, seed=0)
    ids = [records[0]["id"] for records in chosen]
    assert len(set(ids)) == 5 and ids == sorted(ids, key=lambda name: int(name[1:]))
    assert ids == [records[0]["id"] for records in sample_questions(iter(rows), 5, seed=0)[0]]
    assert ids != [records[0]["id"] for records in sample_questions(rows, 5, seed=1)[0]]
    assert (totals.questions, totals.solutions, totals.wrong, totals.labels, totals.measured) == (50, 50, 50, 100, 50)


def test_the_page_shows_values_counts_errors_and_outcomes():
    page = render_trees("labels.jsonl", *sample_questions(SHARED, 5, seed=0))
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))
    assert "5/8 responses right" in text
    assert "a N=3 2/4 0.50" in text
    assert "c ✗ first error ✗ 0/8 0.00" in text
    assert page.count('class="branch"') == 4  # c and d, b and x


def test_text_cannot_become_html():
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;"
    rows = [record([evil], [0], [1], [0], question=evil, label=evil)]
    page = render_trees(evil, *sample_questions(rows, 1, seed=0))
    assert "<script" not in page and "<img" not in page
    assert page.count(html.escape(evil)) >= 4
    assert "default-src 'none'" in page


def test_the_command_writes_a_page(tmp_path, capsys):
    source, output = tmp_path / "labels.jsonl", tmp_path / "out.html"
    source.write_text("".join(json.dumps(row) + "\n" for row in SHARED))
    assert view_labels.main(["--input", str(source), "--output", str(output)]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "output": str(output),
        "bytes": output.stat().st_size,
        "questions": 1,
    }


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        ("", [], "holds no step label"),
        ('{"id": "a"}\n', [], "line 1: not a step-label record, it has no 'question'"),
        ("{\n", [], "line 1: not JSON"),
        ("", ["--questions", "0"], "--questions must be at least 1"),
        ("", ["--input", "nowhere"], "no such file: nowhere"),
    ],
)
def test_bad_input_ends_in_one_line(tmp_path, capsys, content, flags, message):
    source = tmp_path / "labels.jsonl"
    source.write_text(content)
    with pytest.raises(SystemExit) as error:
        view_labels.main(["--input", str(source), "--output", str(tmp_path / "o.html"), *flags])
    assert error.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
