"""Step-label files survive kills, and bad input is named by its line."""

import json

import pytest

from openrlhf_prm.annotation import LabelFile, LabelledSolution
from openrlhf_prm.annotation.records import AnnotatedQuestion, Root
from openrlhf_prm.cli import annotate
from openrlhf_prm.data.questions import Question, read_questions

SETTINGS = {"--annotator": "math_shepherd", "rollouts": 8}


def solution(text: str) -> LabelledSolution:
    return LabelledSolution(text, [text], [1.0], [1], [1.0], [0], [0], [0], True, False)


def found(*texts: str) -> AnnotatedQuestion:
    return AnnotatedQuestion(Root(2, 2), [solution(text) for text in texts], {})


NOTHING_FOUND = AnnotatedQuestion(Root(0, 8), [], {}, dropped="all_wrong")


def write(path, *names: str) -> None:
    with LabelFile(path, SETTINGS) as labels:
        for name in names:
            labels.append(Question(name, f"{name}?", "1"), found("é=1", "b=1"))


def test_records_hold_the_documented_fields(tmp_path):
    path = tmp_path / "new" / "labels.jsonl"
    write(path, "a")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0] == {
        "id": "a",
        "solution": 0,
        "solutions": 2,
        "question": "a?",
        "label": "1",
        "root": {"right": 2, "rollouts": 2, "visits": 0},
        "response": "é=1",
        "steps": ["é=1"],
        "mc_values": [1.0],
        "hard_labels": [1],
        "soft_labels": [1.0],
        "right": [0],
        "rollouts": [0],
        "visits": [0],
        "correct": True,
        "truncated": False,
    }
    assert rows[1]["solution"] == 1
    assert json.loads((tmp_path / "new" / "labels.jsonl.settings.json").read_text()) == SETTINGS


def test_other_settings_are_refused(tmp_path):
    path = tmp_path / "labels.jsonl"
    write(path, "a")
    with pytest.raises(ValueError, match="rollouts was 8, is 4"):
        LabelFile(path, {**SETTINGS, "rollouts": 4})
    with pytest.raises(ValueError, match="seed was None, is 1"):
        LabelFile(path, {**SETTINGS, "seed": 1})


def test_foreign_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text("precious\n")
    with pytest.raises(ValueError, match="has no labels.jsonl.settings.json"):
        LabelFile(path, SETTINGS)
    assert path.read_text() == "precious\n"

    damaged = tmp_path / "damaged.jsonl"
    write(damaged, "a", "b")
    lines = damaged.read_text().splitlines(keepends=True)
    for broken, message in [
        (["{\n", *lines[1:]], "line 1: not a line of this command"),
        ([*lines, *lines[:2]], "line 5: 'a' stands in the file already"),
        ([lines[0], *lines[2:]], "line 2: row 0 of 'b' is out of order"),
    ]:
        damaged.write_text("".join(broken))
        with pytest.raises(ValueError, match=message):
            LabelFile(damaged, SETTINGS)
        assert damaged.read_text() == "".join(broken)


def write_rows(path, *rows) -> str:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return str(path)


def test_questions_are_read_once_each(tmp_path):
    row = {"q": "1+1?", "a": 2}
    path = write_rows(tmp_path / "in.jsonl", row, "", row, {"q": "1+2?", "a": "3", "id": 7}, {"q": "2+2?", "a": "4"})
    questions = read_questions(path, "q", "a")
    assert [(question.question, question.label) for question in questions] == [
        ("1+1?", "2"),
        ("1+2?", "3"),
        ("2+2?", "4"),
    ]
    assert questions[1].id == "7"
    assert len({question.id for question in questions}) == 3
    assert read_questions(path, "q", "a", max_samples=2) == questions[:2]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected a JSON object, got list"),
        ({"a": "1"}, "line 2: no key 'q'; the row has a"),
        ({"q": "x"}, "line 2: no key 'a'; the row has q"),
        ({"q": " ", "a": "1"}, "line 2: 'q' must be a text"),
        ({"q": "x", "a": ["1"]}, "line 2: 'a' must be a text or a number"),
        ({"q": "x", "a": "1", "id": "k"}, "line 2: id 'k' already stands for another question"),
    ],
)
def test_bad_rows_are_named_by_line(tmp_path, bad, message):
    path = write_rows(tmp_path / "in.jsonl", {"q": "good", "a": "1", "id": "k"}, bad)
    with pytest.raises(ValueError, match=message):
        read_questions(path, "q", "a")


def policy_in(parent) -> str:
    """A folder that looks like a checkpoint from outside."""
    (parent / "policy").mkdir()
    (parent / "policy" / "config.json").write_text("{}")
    return str(parent / "policy")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--annotation.rollouts", "0"], "--annotation.rollouts must be at least 1, got 0"),
        (["--rollout.max_new_tokens", "0"], "--rollout.max_new_tokens must be at least 1"),
        (["--annotation.concurrency", "0"], "--annotation.concurrency must be at least 1"),
        (["--data.input", "nowhere.jsonl"], "--data.input: no such file: nowhere.jsonl"),
        (["--data.label_key", "answer"], "line 1: no key 'answer'"),
        (["--actor.model_name_or_path", "./nowhere"], "--actor.model_name_or_path: there is no folder ./nowhere"),
        (["--annotator", "guess"], "invalid choice: 'guess'"),
        (["--steps.splitter", "word"], "invalid choice: 'word'"),
        (["--answers.checker", "vibes"], "unknown answer checker 'vibes'"),
        (["--answers.checker", "reasoning_gym"], "line 1: the label must be a row of reasoning-gym as JSON"),
        (["--data.input_template", "no place"], "--data.input_template has no {}"),
        (["--annotation.rollout", "3"], "unrecognized arguments"),
    ],
)
def test_bad_flags_end_with_one_line(tmp_path, capsys, flags, message):
    questions = write_rows(tmp_path / "in.jsonl", {"question": "1+1?", "label": "2"})
    output = tmp_path / "out.jsonl"
    base = ["--actor.model_name_or_path", policy_in(tmp_path), "--data.input", questions, "--data.output", str(output)]
    with pytest.raises(SystemExit) as end:
        annotate.main([*base, *flags])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not output.exists()


def test_nothing_left_to_do_starts_no_engine(tmp_path, capsys):
    questions = write_rows(tmp_path / "in.jsonl", {"question": "1+1?", "label": "2"})
    output = tmp_path / "out.jsonl"
    flags = ["--actor.model_name_or_path", policy_in(tmp_path), "--data.input", questions, "--data.output", str(output)]
    args = annotate.nested(annotate.build_parser().parse_args(flags))
    [question], options = annotate.check(args)
    with LabelFile(output, annotate.settings_of(args, options)) as labels:
        labels.append(question, found("1+1=2"))
    assert annotate.main(flags) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["questions"], summary["resumed_questions"], summary["rollouts"]) == (0, 1, 0)


def test_an_interruption_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    questions = write_rows(
        tmp_path / "in.jsonl", {"question": "1+1?", "label": "2"}, {"question": "2+2?", "label": "4"}
    )
    output = tmp_path / "out.jsonl"

    def interrupted(args, options, is_correct, todo, labels):
        labels.append(todo[0], found("1+1=2"))
        raise KeyboardInterrupt

    monkeypatch.setattr(annotate, "run", interrupted)
    flags = ["--actor.model_name_or_path", policy_in(tmp_path), "--data.input", questions, "--data.output", str(output)]
    assert annotate.main(flags) == 130
    error = capsys.readouterr().err
    assert "1 questions finished in this run" in error and "run the same command again" in error
    assert error.count("\n") == 1
    assert len(output.read_text().splitlines()) == 1
