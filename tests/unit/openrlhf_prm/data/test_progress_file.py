"""The file of finished work: durable rows, torn lines, settings, and files that are not its own."""

import json

import pytest

from openrlhf_prm.data.progress_file import ProgressFile


def rows(path, settings=None):
    with ProgressFile(path, settings or {"prm": "a"}) as file:
        return list(file.rows()), file.finished


def test_rows_are_kept_and_a_torn_line_is_cut(tmp_path):
    path = tmp_path / "new" / "progress.jsonl"
    with ProgressFile(path, {"prm": "a"}) as file:
        file.append([{"key": "1", "value": 0.5}, {"key": "2", "value": "ü\n"}])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key": "3", "val')
    assert rows(path) == ([{"key": "1", "value": 0.5}, {"key": "2", "value": "ü\n"}], {"1", "2"})
    assert path.read_bytes() == whole
    with ProgressFile(path, {"prm": "a"}) as file:
        file.append([{"key": "3"}])
    assert rows(path)[1] == {"1", "2", "3"}


def test_a_first_line_that_was_torn_starts_over(tmp_path):
    path = tmp_path / "progress.jsonl"
    path.write_text('{"settings": {"pr')
    assert rows(path) == ([], set())
    assert json.loads(path.read_text()) == {"settings": {"prm": "a"}}


def test_other_settings_are_named(tmp_path):
    path = tmp_path / "progress.jsonl"
    rows(path)
    with pytest.raises(ValueError, match="prm was 'a', is 'b'"):
        ProgressFile(path, {"prm": "b"})
    assert rows(path) == ([], set())


@pytest.mark.parametrize("content", ['{"mine": 1}', '{"mine": 1}\n', "[1]\n", '{"settings": {"prm": "a"}}\n{"x": 1}\n'])
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / "precious.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="not a line of this command"):
        ProgressFile(path, {"prm": "a"})
    assert path.read_text() == content


def test_one_run_at_a_time_and_no_folder(tmp_path):
    with ProgressFile(tmp_path / "x", {}), pytest.raises(ValueError, match="being written by another run"):
        ProgressFile(tmp_path / "x", {})
    with pytest.raises(ValueError, match="is a folder"):
        ProgressFile(tmp_path, {})
    with ProgressFile(tmp_path / "x", {}) as file, pytest.raises(AssertionError, match="already finished"):
        file.append([{"key": "1"}, {"key": "1"}])
