"""What a process and its children print, until they are hushed."""

import subprocess
import sys

import pytest

CODE = """
import os, subprocess, sys
from vllm_prm.engine_output import engine_output

CHILD = "import sys; sys.stdin.readline(); print('{}', flush=True); print('{}', file=sys.stderr, flush=True)"
def child(out, err):
    return subprocess.Popen([sys.executable, "-c", CHILD.format(out, err)], stdin=subprocess.PIPE, text=True)

with engine_output() as output:
    first, second = child("child out", "child err"), child("late out", "late err")
    first.communicate("\\n")
    print("own out", flush=True)
    print("100%", file=output.stderr, flush=True)
    if sys.argv[1] == "fails":
        raise ValueError("wrong")
    output.hush()
    second.communicate("\\n")
    print("own late", flush=True)
print("result", flush=True)
os.write(2, b"after\\n")
"""


@pytest.mark.parametrize("fails", [False, True])
def test_all_that_is_printed_before_the_end(fails):
    done = subprocess.run([sys.executable, "-c", CODE, "fails" if fails else ""], capture_output=True, text=True)
    assert done.stdout == ("" if fails else "result\n")
    end = "Traceback" if fails else "after"
    before, _, last = done.stderr.partition(end)
    assert all(said in before for said in ("child out", "child err", "own out", "100%"))
    assert "late" not in done.stderr and last.endswith("ValueError: wrong\n" if fails else "\n")
