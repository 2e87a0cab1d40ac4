"""What an engine and its processes print, shown until nobody needs it.

They write to the file descriptors that they inherit, whatever this process does to its own later. So they inherit a
pipe, and a thread passes on what comes out of it, as long as it is wanted.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_LAST = b"\0end of what was printed so far\0"


class EngineOutput:
    """`stderr`: where this process can still print for its user. `hush()`: drop what is printed from now on."""

    def __init__(self) -> None:
        self._real = os.dup(2)
        self.stderr: TextIO = os.fdopen(os.dup(self._real), "w", errors="backslashreplace")
        self._kept = os.dup(1), os.dup(2)
        self._quiet = False
        self._drained = threading.Event()
        reads, writes = os.pipe()
        for descriptor in (1, 2):
            os.dup2(writes, descriptor)
        os.close(writes)
        threading.Thread(target=self._pass_on, args=(reads,), daemon=True, name="engine-output").start()

    def hush(self) -> None:
        """What comes from now on is of no use to anybody: the work is done, and engines say how they stop."""
        self._drain()
        self._quiet = True

    def restore(self) -> None:
        """The descriptors of before, once everything printed up to here has been passed on."""
        self._drain()
        for descriptor, kept in zip((1, 2), self._kept, strict=True):
            os.dup2(kept, descriptor)
            os.close(kept)
        self.stderr.close()

    def _drain(self) -> None:
        self._drained.clear()
        os.write(2, _LAST)
        self._drained.wait()

    def _pass_on(self, reads: int) -> None:
        while chunk := os.read(reads, 1 << 16):
            before, last, after = chunk.partition(_LAST)
            if not self._quiet:
                with_rest = before + after
                while with_rest:
                    with_rest = with_rest[os.write(self._real, with_rest) :]
            if last:
                self._drained.set()


@contextmanager
def engine_output() -> Iterator[EngineOutput]:
    """Standard output and standard error of this process and of those it starts go to standard error, until `hush`."""
    output = EngineOutput()
    try:
        yield output
    finally:
        output.restore()
