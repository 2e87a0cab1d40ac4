"""Step-label files hold the documented fields; other settings and damaged files are refused."""

import json

import pytest

from openrlhf_prm.annotation import LabelFile, LabelledSolution
from openrlhf_prm.annotation.records import AnnotatedQuestion, Root
from openrlhf_prm.data.questions import Question

SETTINGS = {"--annotator": "math_shepherd", "rollouts": 8}


def solution(text: str) -> LabelledSolution:
    return LabelledSolution(text, [text], [1.0], [1], [1.0], [0], [0], [0], True, False, [0])


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
        "endings": [0],
        "copies": 1,
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


@pytest.mark.parametrize("damaged", ['{"--annotator": ', "", "[]"])
def test_damaged_settings_name_their_file(tmp_path, damaged):
    (tmp_path / "labels.jsonl.settings.json").write_text(damaged)
    with pytest.raises(ValueError, match="labels.jsonl.settings.json (is damaged|holds no settings).*another file"):
        LabelFile(tmp_path / "labels.jsonl", {})
