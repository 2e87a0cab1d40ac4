"""A server in a process group of its own, for the tests that speak HTTP to it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest

from openrlhf_prm.cluster.accelerator import cpu_environment


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A port that nobody else is given. Whoever sets SO_REUSEADDR, as servers do, may listen on it: this socket is
    bound and never listens.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextlib.contextmanager
def running_server(command: Sequence[str], log: Path, environment: Mapping[str, str] = {}) -> Iterator[str]:  # noqa: B006
    """Run `python -m COMMAND --host ... --port ...` and give its URL, at once; await `until_ready` before using it.

    At the end its whole process group is gone, the engines it started included.
    """
    with held_port() as port, log.open("w") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(port)],
            # vLLM closes a connection after 5 idle seconds, just as a slow client is about to use it.
            env={**os.environ, **cpu_environment(), "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "600", **environment},
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        url = f"http://127.0.0.1:{port}"
        _running[url] = process, log
        try:
            yield url
        finally:
            del _running[url]
            end_group(process)


_running: dict[str, tuple[subprocess.Popen, Path]] = {}


def end_group(process: subprocess.Popen, patience_s: float = 30) -> None:
    """End the session leader `process` by SIGTERM, and by SIGKILL whatever of its group is left."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)  # vLLM does not always listen while it starts
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def until_ready(url: str) -> str:
    """Wait until the server answers, however long it takes; the test fails with the end of its log if it stops."""
    process, log = _running[url]
    while process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health").status_code == 200:
                return url
        time.sleep(0.3)
    pytest.fail(f"the server did not start:\n{log.read_text()[-4000:]}")


def process_of(url: str) -> subprocess.Popen:
    """The process of a running server."""
    return _running[url][0]


def log_of(url: str) -> str:
    """What a running server has said so far."""
    return _running[url][1].read_text()
