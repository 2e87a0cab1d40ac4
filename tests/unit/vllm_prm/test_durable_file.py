"""What survives a kill, for all that goes on where it stopped; settings, locks and files that are another's."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import durable_users
import pytest

from vllm_prm.durable_file import DurableFile, in_order, json_line, write_atomically

USERS = durable_users.USERS

ROOT = Path(__file__).parents[3]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, but for how often stages were begun."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if "logs/stages.jsonl" in files:
        rows = [json.loads(line) for line in files.pop("logs/stages.jsonl").splitlines()]
        files |= {f"done {row['stage']}": json.dumps(row["command"]).encode() for row in rows if "seconds" in row}
    return files


def work(name: str, folder: Path) -> dict[str, bytes]:
    folder.mkdir(exist_ok=True)
    USERS[name](folder)
    return contents(folder)


@pytest.mark.parametrize("lost_bytes", [0, 40, 10**6])
@pytest.mark.parametrize("name", USERS)
def test_killed_in_the_middle_of_a_write_nothing_is_lost_or_doubled(tmp_path, name, lost_bytes):
    """Processes that really die, one after the other; the work is then ended in another one."""
    whole = work(name, tmp_path / "whole")
    killed = tmp_path / "killed"
    killed.mkdir()
    for writes in (1, 2, 3):
        command = [sys.executable, durable_users.__file__, name, str(killed), str(writes), str(lost_bytes)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        dead = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert dead.returncode == -9, dead.stderr
    finished = work(name, killed)
    left_over = {file for file in finished if re.search(r"/?\.[^/]*\.partial$", file)}  # of a replacement that died
    assert {file: content for file, content in finished.items() if file not in left_over} == whole


@pytest.mark.parametrize("name", ["scores", "samples", "labels"])
def test_a_file_cut_at_any_byte_is_continued(tmp_path, name):
    whole = work(name, tmp_path / "whole")
    for file in (file for file in whole if file.endswith(f"{name}.jsonl")):
        content = whole[file]
        line_end = content.index(b"\n", len(content) // 2) + 1
        for size in {*range(0, len(content), len(content) // 7), line_end - 1, line_end, line_end + 1}:
            cut = tmp_path / f"{file}-cut{size}"
            shutil.copytree(tmp_path / "whole", cut)
            (cut / file).write_bytes(content[:size])
            assert work(name, cut) == whole, f"{file} cut to {size} bytes"


@pytest.mark.parametrize("name", ["scores", "samples", "labels", "score_command", "stages"])
def test_one_process_at_a_time(tmp_path, name):
    places = {"score_command": "out.jsonl.partial", "stages": "logs/stages.jsonl"}
    path = tmp_path / places.get(name, f"{name}.jsonl")
    settings = None if name == "labels" else {}
    with (
        DurableFile(path, settings, in_order),
        pytest.raises((ValueError, RuntimeError), match=f"is being written by another run, process {os.getpid()}: "),
    ):
        USERS[name](tmp_path)


def rows(path, settings=None):
    with DurableFile(path, settings or {"prm": "a"}) as file:
        return list(file.rows()), file.finished


def test_rows_are_kept_and_a_torn_line_is_cut(tmp_path):
    path = tmp_path / "new" / "file.jsonl"
    with DurableFile(path, {"prm": "a"}) as file:
        file.append([{"key": "1", "value": 0.5}, {"key": "2", "value": "ü\n"}])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key": "3", "val')
    assert rows(path) == ([{"key": "1", "value": 0.5}, {"key": "2", "value": "ü\n"}], {"1", "2"})
    assert path.read_bytes() == whole
    with DurableFile(path, {"prm": "a"}) as file:
        file.append([{"key": "3"}])
    assert rows(path)[1] == {"1", "2", "3"}


@pytest.mark.parametrize("torn", ['{"settings": {"pr', '{"se', "{"])
def test_settings_that_were_torn_start_over(tmp_path, torn):
    path = tmp_path / "file.jsonl"
    path.write_text(torn)
    assert rows(path) == ([], set())
    assert json.loads(path.read_text()) == {"settings": {"prm": "a"}}


def test_every_other_setting_is_named(tmp_path):
    path = tmp_path / "file.jsonl"
    rows(path, {"prm": "a", "seed": 1})
    with pytest.raises(ValueError, match="prm was 'a', is 'b'; seed was 1, is None"):
        DurableFile(path, {"prm": "b"})
    assert rows(path, {"prm": "a", "seed": 1}) == ([], set())


@pytest.mark.parametrize("content", ['{"mine": 1}', '{"mine": 1}\n', "[1]\n", '{"settings": {"prm": "a"}}\n{"x": 1}\n'])
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / "precious.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="not a line of this command"):
        DurableFile(path, {"prm": "a"})
    assert path.read_text() == content


def test_rows_of_a_key_stand_together(tmp_path):
    def place(row, before):
        return row["id"], row["part"], 2

    def write(path, *parts):
        path.write_text("".join(json.dumps({"id": key, "part": part}) + "\n" for key, part in parts))
        return path

    path = write(tmp_path / "file.jsonl", ("a", 0), ("a", 1), ("b", 0))
    with DurableFile(path, None, place) as file:
        assert file.finished == {"a"} and len(list(file.rows())) == 2
        with pytest.raises(AssertionError, match="lacks rows"):
            file.append([{"id": "b", "part": 0}])
    for parts, message in [
        ([("a", 1)], "line 1: row 1 of 'a' is out of order"),
        ([("a", 0), ("b", 0)], "line 2: row 0 of 'b' is out of order"),
        ([("a", 0), ("a", 1), ("a", 0)], "line 3: 'a' stands in the file already"),
    ]:
        with pytest.raises(ValueError, match=message):
            DurableFile(write(path, *parts), None, place)


def test_what_cannot_be_a_file_or_a_row(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        DurableFile(tmp_path, {})
    (tmp_path / "x").touch()
    with pytest.raises(ValueError, match="cannot be written: Not a directory"):
        DurableFile(tmp_path / "x" / "y" / "z", {})
    with DurableFile(tmp_path / "x", {}) as file:
        file.append([{"key": "1"}])
        before = file.path.read_bytes()
        for bad in ({"key": "1"}, {"key": "2", "value": float("nan")}):
            with pytest.raises((AssertionError, ValueError)):
                file.append([{"key": "0"}, bad])
        with pytest.raises(AssertionError, match="some twice"):
            file.append([{"key": "3"}, {"key": "3"}])
        assert file.path.read_bytes() == before and file.finished == {"1"}


def test_half_a_surrogate_pair_is_written_as_json_can():
    assert json.loads(json_line({"text": "\ud800ü"})) == {"text": "\ud800ü"} and "ü".encode() in json_line({"a": "ü"})


def test_whole_files(tmp_path):
    path = tmp_path / "new" / "file"
    write_atomically(path, "ü")
    assert path.read_text() == "ü"

    def broken():
        yield b"half"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write_atomically(path, broken())
    assert path.read_text() == "ü" and list(path.parent.iterdir()) == [path]
