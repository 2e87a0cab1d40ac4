"""Nothing that tests start outlives them, however they end: engines and servers hold memory and cores.

`start()` marks this process's environment, which every process that it starts inherits, and runs this file beside it:
`reaper.py NAME VALUE`: when stdin ends, end every process whose environment holds NAME=VALUE.

First SIGTERM, and SIGKILL for what is there after `PATIENCE_S` seconds. A process shows the environment it was started
with, whoever its parent is now.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

PATIENCE_S = 10
MARK = "OPENRLHF_PRM_TEST_RUN"


def start() -> int:
    """Marks this process and starts a reaper, which acts when it is gone; the pipe that only this process can write to,
    to be kept open. SIGTERM, as `timeout` sends it, becomes a KeyboardInterrupt, so that fixtures end first.
    """
    os.environ[MARK] = uuid.uuid4().hex
    os.environ["SPT_NOENV"] = "1"  # vLLM renames its processes, which would wipe out the environment they show
    reading, writing = os.pipe()
    # The reaper sees the end of the pipe when this process, which alone can write to it, is gone.
    subprocess.Popen(
        [sys.executable, __file__, MARK, os.environ[MARK]],
        stdin=reading,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if name != MARK},
    )
    os.close(reading)
    signal.signal(signal.SIGTERM, _interrupt)
    return writing


def _interrupt(signum, frame):
    signal.signal(signum, signal.SIG_IGN)  # a second one must not break off the cleaning up
    raise KeyboardInterrupt("terminated")


def marked(mark: bytes) -> list[int]:
    """Ids of the processes that carry the mark."""
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    processes.append(int(entry.name))
    return processes


def main() -> None:
    """Wait for the end of stdin, then clean up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    mark = f"{sys.argv[1]}={sys.argv[2]}".encode()
    sys.stdin.buffer.read()
    time.sleep(1)  # what is ending anyway may do so by itself
    deadline = time.monotonic() + PATIENCE_S
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
        while number == signal.SIGTERM and marked(mark) and time.monotonic() < deadline:
            time.sleep(0.2)


if __name__ == "__main__":
    main()
