"""math-verify in a process of its own, which ends where an answer takes it too long.

`9^{9^{9^9}}` is a short answer that would be worked out for ever, and what judges answers also serves engines. Neither
threads nor Python's signals can stop it there. The limit is the process's own CPU time, kept by the kernel, so that a
loaded machine makes no right answer wrong; memory is limited too. A process that ends for any other reason says nothing
about the answer: a new one is asked, and where that happens again and again it is an error.
"""

import json
import logging
import os
import resource
import select
import signal
import subprocess
import sys
import threading

logger = logging.getLogger(__name__)
START_S = 300.0
PATIENCE = 60
"""Seconds on the clock that a process may take for each second of CPU time it is allowed."""
ATTEMPTS = 3
MEMORY = 2 << 30
"""Bytes of address space; math-verify at rest takes 65 MB."""


class AnswerProcess:
    """`same(reference, answer)` asks the process, started at the first call and again after it ended. One question at a
    time; a forked process gets its own. `limit_s`: CPU seconds for one comparison. `command`: what is started.
    """

    def __init__(
        self, limit_s: float = 10.0, command: tuple[str, ...] = (sys.executable, "-m", "openrlhf_prm.answers.process")
    ):
        self.limit_s = limit_s
        self.command = command
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._owner: int | None = None

    def same(self, reference: str, answer: str) -> bool:
        """Whether both are the same as mathematics; False where that takes more than the limit of CPU time or memory.

        Raises RuntimeError where the process was ended from outside, or was not allowed to run, `ATTEMPTS` times.
        """
        with self._lock:
            for _ in range(ATTEMPTS):
                said = self._ask(reference, answer)
                if said in ("0", "1"):
                    return said == "1"
                if said in ("time", "memory"):
                    limit = f"{self.limit_s:g} s" if said == "time" else f"{MEMORY >> 30} GiB"
                    logger.warning(f"comparing an answer with {reference!r} took over {limit}: counted as wrong")
                    return False
            raise RuntimeError(f"comparing answers with {reference!r} failed {ATTEMPTS} times: {said}")

    def _ask(self, reference: str, answer: str) -> str:
        """What the process says, "time" where it ended by its limit, else why it says nothing."""
        if self._owner != os.getpid() or self._process.poll() is not None:
            self._start()
        try:
            self._process.stdin.write(json.dumps([self.limit_s, reference, answer]) + "\n")
            self._process.stdin.flush()
            said = self._line(self.limit_s * PATIENCE)
        except BrokenPipeError:
            said = ""
        if said:
            return said
        if said is None:
            self._process.kill()
        code = self._process.wait()
        if said is None:
            return f"the process of math-verify got no {self.limit_s:g} s of CPU time in {PATIENCE} times as long"
        return "time" if code == -signal.SIGPROF else f"the process of math-verify ended with code {code}"

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self.command,
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
    """Answers "1", "0" or "memory" to each line [CPU seconds, reference, answer] of standard input."""
    from openrlhf_prm.answers.formulas import same_formula

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends whoever asks, and this ends with its input
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process
    # math-verify's own time limits would warn that they are off at each call.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    same_formula("x", "x + 1")  # the first comparison of a process loads what takes seconds
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print("ready", flush=True)
    for line in sys.stdin:
        limit_s, reference, answer = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        try:
            said = str(int(same_formula(reference, answer)))
        except MemoryError:
            said = "memory"
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(said, flush=True)


if __name__ == "__main__":
    main()
