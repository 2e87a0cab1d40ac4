"""Questions are read once, and bad rows are named by their line."""

import json

import pytest

from openrlhf_prm.data.questions import read_questions


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
