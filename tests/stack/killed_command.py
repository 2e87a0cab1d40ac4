"""A command that is killed, or whose disk is full, while it works, for the tests that start it again.

`killed_command.py kill|fill PATH LINES MODULE FLAG...` runs MODULE as `python -m` does, and kills itself, or may write
to no file any more, as soon as the file PATH has more than LINES lines, or the folder PATH is there. Who watched it
from outside might come too late.
"""

import os
import resource
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from commands import ROOT


def kill_midway(path: Path, lines: int, log: Path, module: str, *flags: object) -> None:
    """Run `python -m MODULE FLAGS` until `path` is a folder or a file of more than `lines` lines, and kill it there;
    the test fails with the end of the log if the command ends before that.
    """
    with log.open("w") as sink:
        done = subprocess.run(_command("kill", path, lines, module, *flags), cwd=ROOT, stdout=sink, stderr=sink)
    assert done.returncode == -signal.SIGKILL, log.read_text()[-3000:]


def fill_disk_midway(path: Path, lines: int, module: str, *flags: object) -> str:
    """The same, with a disk that is full from there on; the line in which the command said so when it ended."""
    # What it says goes through a pipe: a log would be a file that grows no more.
    done = subprocess.run(_command("fill", path, lines, module, *flags), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stdout[-2000:] + done.stderr[-3000:]
    [told] = [line for line in done.stderr.splitlines() if " error: " in line]
    return told


def _command(*arguments: object) -> list[str]:
    return [sys.executable, __file__, *map(str, arguments)]


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill() -> None:
    """This process's files grow no more; those of processes that it has started do."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


class Watcher:
    """Looks at the path whenever this process has put a file on disk or is about to open one, and then does `act`."""

    def __init__(self, act: Callable[[], None], path: Path, lines: int):
        self.act, self.path, self.lines = act, path, lines
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
            self.act()
        self.thread.looks = False


def main() -> None:
    how, path, lines, module, *flags = sys.argv[1:]
    Watcher({"kill": kill, "fill": fill}[how], Path(path), int(lines))
    sys.argv = [module, *flags]
    sys.path[0] = os.getcwd()  # as `python -m` has it
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
