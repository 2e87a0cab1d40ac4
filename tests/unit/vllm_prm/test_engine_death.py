"""How a server ends tells whether its engine died."""

import subprocess
import sys

import pytest

CODE = """
import threading
from types import SimpleNamespace
from vllm_prm.engine_death import fail_with
stopped = []
client = SimpleNamespace(errored=False, shutdown=lambda timeout=None: stopped.append(timeout))
fail_with(client)
{how}
assert stopped, "the engine is stopped as ever"
print("cleaned up")
"""
SIGNAL = "thread = threading.Thread(target=client.shutdown, kwargs={'timeout': 0}); thread.start(); thread.join()"


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("client.errored = True; client.shutdown(timeout=0)", 1),
        ("client.errored = True; client.shutdown(); client.shutdown()", 1),
        ("client.shutdown()", 0),
        (f"{SIGNAL}; client.errored = True; client.shutdown()", 0),
    ],
    ids=["died", "stopped twice", "stopped", "after a signal"],
)
def test_exit_code(how, code):
    done = subprocess.run([sys.executable, "-c", CODE.format(how=how)], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stdout == "cleaned up\n" and ("engine died" in done.stderr) == bool(code)
