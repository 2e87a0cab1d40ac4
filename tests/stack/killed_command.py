"""A command that is killed while it works, for the tests that start it again."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def kill_midway(command: Sequence[str], kept: Path, lines: int, log: Path) -> str:
    """Run `command` until the file `kept` has more than `lines` lines, kill it, and give what `kept` holds without a
    torn last line; the test fails with the end of the log if the command ends before that.
    """
    with log.open("w") as sink:
        process = subprocess.Popen(command, cwd=ROOT, stdout=sink, stderr=sink)
    while process.poll() is None and not (kept.exists() and len(kept.read_text().splitlines()) > lines):
        time.sleep(0.02)
    assert process.poll() is None, log.read_text()[-3000:]
    process.kill()
    process.wait()
    text = kept.read_text()
    return text[: text.rindex("\n") + 1]
