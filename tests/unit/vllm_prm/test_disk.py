"""A full disk is one line that names the file; `/dev/full` is one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vllm_prm.disk import ONCE_MORE, disk_fault
from vllm_prm.durable_file import write_atomically

FULL = "No space left on device"


@pytest.fixture
def full(monkeypatch):
    """Whatever is opened for writing is on a full disk; nothing else is."""
    true_open = open

    def opened(path, mode="r", *args, **kwargs):
        return true_open("/dev/full" if "w" in mode else path, mode, *args, **kwargs)

    monkeypatch.setattr("builtins.open", opened)


def test_what_appears_whole_names_itself(tmp_path, full):
    with pytest.raises(OSError) as error:
        write_atomically(tmp_path / "numbers.json", "{}")
    assert disk_fault(error.value) == f"{tmp_path / 'numbers.json'} cannot be written: {FULL}"
    assert list(tmp_path.iterdir()) == []


APPENDING = """
import json, resource, sys
from pathlib import Path
from vllm_prm.disk import disk_fault
from vllm_prm.durable_file import DurableFile

path = Path(sys.argv[1])
try:
    with DurableFile(path, {"a": 1}) as file:
        file.append([{"key": "x"}])
        whole = path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (whole + 5, resource.RLIM_INFINITY))
        file.append([{"key": "y"}])
except OSError as error:
    print(json.dumps([disk_fault(error), sorted(file.finished), path.stat().st_size - whole]))
"""


def test_rows_that_are_appended_name_their_file_and_leave_no_half_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    code = [sys.executable, "-c", APPENDING, str(path)]
    done = subprocess.run(code, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert json.loads(done.stdout) == [f"{path} cannot be written: File too large", ["x"], 0], done.stderr


def test_score_to_a_full_disk():
    code = (
        "import vllm_prm.score_file as score, vllm_prm.serve as serve\n"
        "score.score_file = lambda args: open('/dev/full', 'wb', 0).write(b'x')\n"
        "serve.main(['score', '--url', 'http://x'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 1
    assert done.stderr == f"vllm-prm score: a file cannot be written: {FULL}; {ONCE_MORE}\n"
