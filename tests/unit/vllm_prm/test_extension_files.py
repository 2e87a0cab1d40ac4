"""Entries of registries from a user's file."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from vllm_prm.extension_files import load_from_file, names_file, resolve

SOURCE = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass(frozen=True)
class Twice:
    factor: int = 2

    def __call__(self, value: int) -> int:
        return self.factor * value
"""


@pytest.fixture
def extension(tmp_path) -> str:
    (tmp_path / "mine.py").write_text(SOURCE)
    return f"{tmp_path / 'mine.py'}:Twice"


def test_a_key_is_looked_up_and_a_file_is_loaded(extension):
    assert resolve({"one": 1}, "one", "thing") == 1
    assert resolve({"one": 1}, extension, "thing")()(21) == 42
    assert load_from_file(extension) is load_from_file(extension)
    assert names_file(extension) and not names_file("one")


def test_instances_travel_to_processes_that_do_not_have_the_module(extension, tmp_path):
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    (tmp_path / "sent").write_bytes(cloudpickle.dumps(load_from_file(extension)(factor=3)))
    code = f"import pickle; print(pickle.load(open({str(tmp_path / 'sent')!r}, 'rb'))(2))"
    done = subprocess.run([sys.executable, "-c", f"import ray.cloudpickle; {code}"], capture_output=True, text=True)
    assert done.stdout.strip() == "6", done.stderr
    with pytest.raises(Exception, match="extension_file_mine"):
        pickle.dumps(load_from_file(extension)())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three", "unknown thing 'three'; choose one of one, two, or give FILE.py:Name"),
        ("absent.py:Twice", "there is no file absent.py"),
        ("{folder}/mine.py", "must be FILE.py:Name"),
        ("{folder}/mine.py:Thrice", "defines no Thrice"),
        ("{folder}/broken.py:Any", "broken.py cannot be imported: ZeroDivisionError"),
    ],
)
def test_what_cannot_be_had_is_said(extension, name, message):
    folder = Path(extension.partition(":")[0]).parent
    (folder / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        resolve({"one": 1, "two": 2}, name.format(folder=folder), "thing")
