"""math-verify in a process of its own, which is ended where an answer takes it too long.

`9^{9^{9^9}}` is a short answer that would be worked out for ever, and what judges answers also serves engines. Neither
threads nor signals can stop it there.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading

logger = logging.getLogger(__name__)
START_S = 300.0


class AnswerProcess:
    """`same(reference, answer)` asks the process, started at the first call and again after it was ended. One question
    at a time; a forked process gets its own.
    """

    def __init__(self, limit_s: float = 10.0):
        self.limit_s = limit_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._owner: int | None = None

    def same(self, reference: str, answer: str) -> bool:
        """Whether both are the same as mathematics; False where that takes longer than `limit_s` seconds."""
        with self._lock:
            if self._owner != os.getpid() or self._process.poll() is not None:
                self._start()
            self._process.stdin.write(json.dumps([reference, answer]) + "\n")
            self._process.stdin.flush()
            said = self._line(self.limit_s)
            if said is None:
                self._process.kill()
                self._process.wait()
                logger.warning(f"comparing an answer with {reference!r} took over {self.limit_s:g} s: counted as wrong")
            return said == "1"

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "openrlhf_prm.answers.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._owner = os.getpid()
        if self._line(START_S) != "ready":
            raise RuntimeError("math-verify could not be started")

    def _line(self, limit_s: float) -> str | None:
        """The next line, None where it does not come in time; "" at the end of the process."""
        readable, _, _ = select.select([self._process.stdout], [], [], limit_s)
        return self._process.stdout.readline().strip() if readable else None


def main() -> None:
    """Answers "1" or "0" to each line [reference, answer] of standard input."""
    from openrlhf_prm.answers.formulas import same_formula

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends whoever asks, and this ends with its input
    # math-verify's own time limits would warn that they are off at each call.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    same_formula("x", "x + 1")  # the first comparison of a process loads what takes seconds
    print("ready", flush=True)
    for line in sys.stdin:
        print(int(same_formula(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
