"""`reaper.py NAME VALUE`: when stdin ends, end every process whose environment holds NAME=VALUE.

First SIGTERM, and SIGKILL for what is there after `PATIENCE_S` seconds. A process shows the environment it was started
with, whoever its parent is now.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

PATIENCE_S = 10


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
