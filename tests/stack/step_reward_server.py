"""What the tests ask of a running `vllm-prm serve`: answers, metrics, and a client that goes away.

No test here depends on how fast the machine is: limits of time are far beyond what anything takes, and what must not be
finished before something else happens is held back until then.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

HEADERS = {"Authorization": "Bearer secret"}
LIMIT_S = 300.0
CLIENT = httpx.Client(timeout=LIMIT_S)


def post(server: str, body: dict, headers: dict[str, str] = HEADERS) -> httpx.Response:
    return CLIENT.post(f"{server}/v1/step_rewards", json=body, headers=headers)


def metrics(server: str) -> dict[str, float]:
    """Name -> value, summed over labels, of everything on /metrics."""
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(CLIENT.get(f"{server}/metrics").text):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return totals


def moved(server: str, before: dict[str, float]) -> dict[str, float]:
    """What our metrics gained since `before`."""
    return {
        name: value - before.get(name, 0.0)
        for name, value in metrics(server).items()
        if name.startswith("vllm_prm:")
        and value != before.get(name, 0.0)
        and not name.endswith(("_created", "_bucket"))
    }


def until(holds: Callable[[], bool], limit_s: float = LIMIT_S) -> bool:
    """Wait until `holds()`, and say whether it came to that."""
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextlib.contextmanager
def held_back(server: str) -> Iterator[None]:
    """The engine takes requests and computes nothing. The server needs VLLM_SERVER_DEV_MODE."""
    assert CLIENT.post(f"{server}/pause?mode=keep", headers=HEADERS).status_code == 200
    try:
        yield
    finally:
        assert CLIENT.post(f"{server}/resume", headers=HEADERS).status_code == 200


def ask_and_leave(server: str, data: list[dict]) -> None:
    """Ask for more than the engine, which is held back, can answer, and go away once the server works on it.

    How long that takes to begin depends on the machine, and does not show; so the client's patience grows until its
    leaving was noticed as one that broke off work.
    """
    cancelled = "vllm_prm:cancelled_requests_total"
    before = metrics(server)
    for patience_s in (0.5, 2, 8, 32):
        with pytest.raises(httpx.ReadTimeout):
            timeout = httpx.Timeout(LIMIT_S, read=patience_s)
            httpx.post(f"{server}/v1/step_rewards", json={"data": data}, headers=HEADERS, timeout=timeout)
        if until(lambda: moved(server, before).get(cancelled) == 1, limit_s=20):
            return
    raise AssertionError("the server did not notice that its client went away")


def leaves_the_engine_free(server: str, data: list[dict], *, requests: int, tokens: int) -> None:
    """A client asks for `data` and leaves. Nothing of it is computed, and another client is answered, with as many
    `requests` to the engine, of at most so many `tokens`, as its one step takes.
    """
    with held_back(server):
        before = metrics(server)
        ask_and_leave(server, data)
        gained = moved(server, before)
    assert gained.get("vllm_prm:errors_total") is None
    assert post(server, {"question": "after", "steps": ["a"]}).status_code == 200
    assert until(lambda: sum(metrics(server)[f"vllm:num_requests_{state}"] for state in ("running", "waiting")) == 0)
    after = metrics(server)
    assert after["vllm:request_success_total"] - before["vllm:request_success_total"] == requests
    # Counted by the engine's scheduler, whether or not somebody still waits for the answer.
    assert 0 < after["vllm:prefix_cache_queries_total"] - before["vllm:prefix_cache_queries_total"] <= tokens
