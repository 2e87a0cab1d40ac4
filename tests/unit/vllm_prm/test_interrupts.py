"""Real processes that are asked to end."""

import os
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

RECIPE = """
import runpy, sys
sys.executable = sys.argv.pop(1)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""`python -m MODULE FLAGS` whose stages wait instead of working: each is a command under `sys.executable`."""

WAITS = """#!/bin/sh
echo $$ > "$0.pid.new"
mv "$0.pid.new" "$0.pid"
exec sleep 100000
"""

RECIPES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/run.py"))


def started(*command: str, ignored: int | None = None) -> subprocess.Popen:
    """A process with the signals of a terminal's, whatever this one was started with, but for one it ignores."""

    def set_signals():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
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


def recipe(name: str, folder: Path) -> tuple[subprocess.Popen, Path]:
    """The recipe in a session of its own, and the file with its stage's number."""
    folder.mkdir()
    interpreter = folder / "python"
    interpreter.write_text(WAITS)
    interpreter.chmod(0o755)
    flags = ["--output", str(folder / "run")]
    if name == "gsm8k_smollm2":
        for split in ("train", "test"):
            (folder / f"{split}.jsonl").touch()
        flags += ["--gsm8k", str(folder), "--prmbench", str(folder)]
    code = RECIPE.replace("sys.argv[0]", repr(f"examples.{name}.run"))
    return started(code, str(interpreter), *flags), Path(f"{interpreter}.pid")


def test_every_recipe_is_there():
    assert {"quickstart", "rejection_sampling", "calculator_agent", "gsm8k_smollm2"} <= set(RECIPES)


@pytest.mark.parametrize("closed", [False, True], ids=["terminated", "terminal_closed"])
def test_a_recipe_that_is_asked_to_end_takes_its_stage_along(tmp_path, closed):
    """`make` hands SIGTERM to the recipe alone; a terminal that is closed sends SIGHUP to all of its group."""
    running = {name: recipe(name, tmp_path / name) for name in RECIPES}
    for name, (process, stage) in running.items():
        while not stage.exists():
            assert process.poll() is None, (name, process.communicate()[0])
            time.sleep(0.05)
    for process, _ in running.values():
        os.killpg(process.pid, signal.SIGHUP) if closed else process.terminate()
    for name, (process, stage) in running.items():
        output = process.communicate()[0]
        assert process.returncode == 1 and "the same command goes on" in output and "Traceback" not in output, name
        with pytest.raises(ProcessLookupError):
            os.kill(int(stage.read_text()), 0)
