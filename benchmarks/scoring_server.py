"""`vllm-prm serve` and its clients, for the benchmarks of serving."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.step_scoring_systems import QWEN, Solution, engine_arguments


@contextlib.contextmanager
def server(model: Path, log: Path, flags: Sequence[str] = ()) -> Iterator[tuple[str, int]]:
    """A server for `model`: its URL and its process; `flags` come last and win. `RuntimeError` naming `log` if it ends
    before it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = ["--disable-uvicorn-access-log"]
    for name, value in engine_arguments().items():
        if value is not False:
            given += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    command = [sys.executable, "-m", "vllm_prm.serve", "serve", str(model), "--family", QWEN[0]]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), *given, *flags],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=dict(os.environ),
        )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with status {process.returncode}, see {log}")
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            time.sleep(0.5)
        yield url, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


async def ask(url: str, work: Iterable[Solution], clients: int) -> tuple[list[list[float] | None], list[float]]:
    """The scores of `work` in order, by `clients` clients that each wait for an answer before they ask again, and each
    request's seconds. An error of the server is raised."""
    waiting = enumerate(work)
    answers: dict[int, list[float]] = {}
    seconds: list[float] = []

    async def client() -> None:
        async with httpx.AsyncClient(timeout=600) as connection:
            for number, (question, steps) in waiting:
                started = time.perf_counter()
                answer = await connection.post(f"{url}/v1/step_rewards", json={"question": question, "steps": steps})
                seconds.append(time.perf_counter() - started)
                answer.raise_for_status()
                answers[number] = answer.json()["data"][0]["step_rewards"]

    await asyncio.gather(*(client() for _ in range(clients)))
    return [answers.get(number) for number in range(len(seconds))], seconds


def environment(threads: int) -> dict[str, Any]:
    """What `benchmarks.step_scoring_worker` gives its systems, for the server."""
    from benchmarks.step_scoring_worker import settings

    return {**settings(threads), "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
