"""Servers of a run under faults: each is started again as often as it ends, and lies where it is told to."""

import contextlib
import http.client
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from servers import end_group, held_port

from openrlhf_prm.cluster.accelerator import cpu_environment

HERE = Path(__file__).parent
PATIENCE_S = 600


class Server:
    """A program that listens on a port of its own, started again by `supervise` where it ended."""

    def __init__(self, program: Sequence[object], log: Path, port: int, environment: dict[str, str]):
        self.program, self.log, self.port, self.environment = program, log, port, environment
        self.codes: list[int] = []
        self.start()

    def start(self) -> None:
        environment = {**os.environ, **cpu_environment(), **self.environment}
        with self.log.open("a") as sink:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, self.program)],
                env=environment,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    def supervise(self) -> None:
        """Starts it again where it ended."""
        if self.process.poll() is not None:
            self.codes.append(self.process.returncode)
            self.start()

    def answers(self) -> bool:
        """Whether it listens and is well; a program without /health is, once it listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status in (200, 501)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _changed(key: float | str | None) -> Callable[[dict], None]:
    def change(answer: dict) -> None:
        answer["data"][0]["step_rewards"][0] = key

    return change


def _shortened(answer: dict) -> None:
    answer["data"][0]["step_rewards"].pop()


LIES: dict[str, Callable[[dict], None]] = {
    "NaN": _changed(math.nan),
    "null": _changed(None),
    "text": _changed("0.9"),
    "too short": _shortened,
}


class Front:
    """Stands before a server and passes everything on, but for one answer an order: a lie, "slow", "hang" or "500"."""

    def __init__(self, server: Server):
        self.server = server
        self.order: str | None = None
        self.lock = threading.Lock()
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                order = front.taken()
                if order == "hang":
                    time.sleep(60)  # nobody waits as long: --prm.answer_s
                if order == "slow":
                    time.sleep(5)
                try:
                    status, content = (500, b"{}") if order == "500" else front.passed_on(self.path, body)
                except (OSError, http.client.HTTPException):
                    self.close_connection = True
                    return
                if order in LIES and status == 200:
                    answer = json.loads(content)
                    LIES[order](answer)
                    content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                """Clients are killed while they are answered."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def taken(self) -> str | None:
        with self.lock:
            order, self.order = self.order, None
        return order

    def passed_on(self, path: str, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE_S)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@contextlib.contextmanager
def fronts(prm: Path, folder: Path, count: int) -> Iterator[list[Front]]:
    """So many servers of a PRM, once they answer, while the block runs."""
    serve = ["-m", "vllm_prm.serve", "serve", prm, "--dtype", "float32", "--enforce-eager", "--max-model-len", 512]
    serve += ["--kv-cache-memory-bytes", 64 << 20]
    cores = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}  # of their own, as on GPUs
    with contextlib.ExitStack() as stack:
        made = []
        for number in range(count):
            port = stack.enter_context(held_port())
            server = Server([*serve, "--port", port], folder / f"server{number}.log", port, cores)
            stack.callback(lambda server=server: end_group(server.process))
            made.append(Front(server))
            stack.callback(made[-1].http.shutdown)
            _until(server)
        yield made


@contextlib.contextmanager
def reward_server(folder: Path) -> Iterator[Server]:
    """Outcome rewards by HTTP, with orders of their own in `folder`/reward_orders, while the block runs."""
    orders = folder / "reward_orders"
    orders.mkdir(exist_ok=True)
    with held_port() as port:
        environment = {"CHAOS_ORDERS": str(orders)}
        server = Server([HERE / "chaotic_reward.py", port], folder / "rewards.log", port, environment)
        try:
            _until(server)
            yield server
        finally:
            end_group(server.process)


def _until(server: Server) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not server.answers():
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{server.log}: a server did not start")
        time.sleep(0.5)
