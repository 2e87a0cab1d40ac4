"""A command that is killed while it works, for the tests that start it again.

`killed_command.py PATH LINES MODULE FLAG...` runs MODULE as `python -m` does, and kills itself as soon as the file PATH
has more than LINES lines, or the folder PATH is there. Who watched it from outside might come too late.
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
from pathlib import Path

from commands import ROOT


def kill_midway(path: Path, lines: int, log: Path, module: str, *flags: object) -> None:
    """Run `python -m MODULE FLAGS` until `path` is a folder or a file of more than `lines` lines, and kill it there;
    the test fails with the end of the log if the command ends before that.
    """
    command = [sys.executable, __file__, path, lines, module, *flags]
    with log.open("w") as sink:
        done = subprocess.run([str(part) for part in command], cwd=ROOT, stdout=sink, stderr=sink)
    assert done.returncode == -signal.SIGKILL, log.read_text()[-3000:]


class Killer:
    """Looks at the path whenever this process has put a file on disk or is about to open one."""

    def __init__(self, path: Path, lines: int):
        self.path, self.lines = path, lines
        self.thread = threading.local()
        self.fsync = os.fsync
        os.fsync = self.after_fsync
        sys.addaudithook(lambda event, _: self.look() if event == "open" else None)

    def after_fsync(self, file: int) -> None:
        self.fsync(file)
        self.look()

    def look(self) -> None:
        if getattr(self.thread, "looks", False):  # looking opens the file as well
            return
        self.thread.looks = True
        if self.path.is_dir() or (self.path.exists() and len(self.path.read_bytes().splitlines()) > self.lines):
            os.kill(os.getpid(), signal.SIGKILL)
        self.thread.looks = False


def main() -> None:
    path, lines, module, *flags = sys.argv[1:]
    Killer(Path(path), int(lines))
    sys.argv = [module, *flags]
    sys.path[0] = os.getcwd()  # as `python -m` has it
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
