"""Real processes that are asked to end."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

WAITING = """
import signal, sys
from vllm_prm.interrupts import end_as_after_ctrl_c
end_as_after_ctrl_c()
try:
    print("waiting", flush=True)
    signal.pause()
except KeyboardInterrupt:
    print("kept what there was")
    sys.exit(130)
"""

STAGE = """
import os, signal, sys
try:
    print(os.getpid(), flush=True)
    signal.pause()
except KeyboardInterrupt:
    sys.exit(130)
"""

STAGES = """
import sys
from pathlib import Path
from examples.quickstart.stages import Stage, exit_in_one_line, run_stages
with exit_in_one_line():
    run_stages([Stage("one", "the stage", [sys.executable, "-c", sys.argv[1]], [], 1.0)], Path(sys.argv[2]))
"""


def started(*command: str, ignored: int | None = None) -> subprocess.Popen:
    """A process with the signals of a terminal's, whatever this one was started with, but for one it ignores."""

    def set_signals():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, "-c", *command], env=environment, preexec_fn=set_signals, **pipes)


@pytest.mark.parametrize("ignored", [None, signal.SIGINT])  # what a script starts in the background ignores Ctrl-C
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_ends_as_after_ctrl_c(number, ignored):
    process = started(WAITING, ignored=ignored)
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    assert process.communicate()[0] == "kept what there was\n" and process.returncode == 130


def test_under_nohup_a_closed_terminal_ends_nothing():
    process = started(WAITING, ignored=signal.SIGHUP)
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGHUP)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[0] == "kept what there was\n"


def test_a_recipe_that_is_asked_to_end_takes_its_stage_along(tmp_path):
    recipe = started(STAGES, STAGE, str(tmp_path))
    log = tmp_path / "logs" / "one.log"
    while not (log.is_file() and re.search(r"\n\d+\n", log.read_text())):
        assert recipe.poll() is None, recipe.communicate()[0]
        time.sleep(0.05)
    stage = int(log.read_text().splitlines()[-1])
    recipe.send_signal(signal.SIGTERM)
    assert "the same command goes on" in recipe.communicate()[0]
    with pytest.raises(ProcessLookupError):
        os.kill(stage, 0)
