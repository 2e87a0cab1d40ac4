"""The parts of the endpoint that need no engine."""

import asyncio
import gc
import threading
import weakref
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from letter_prm import FakeAsyncEngine, Letters

from vllm_prm.endpoint import EngineAuthentication, StepRewardState, router
from vllm_prm.errors import ContextLengthError
from vllm_prm.limits import Limits
from vllm_prm.scorer import StepScorer


@pytest.mark.parametrize(
    ("path", "guarded"),
    [
        *((path, True) for path in ("/pooling", "/generative_scoring", "/scale_elastic_ep", "/update_weights")),
        *((path, True) for path in ("/collective_rpc", "/sleep", "/healthy", "/health/pooling", "/not/known/yet")),
        *((path, False) for path in ("/health", "/ping", "/metrics", "/metrics/", "/version")),
    ],
)
def test_what_vllm_leaves_open_needs_the_key(path, guarded):
    app = FastAPI()
    app.add_api_route(path, lambda: "reached", methods=["POST"])
    app.add_middleware(EngineAuthentication, tokens=["secret"])
    client = TestClient(app)
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert client.post(path, headers=headers).status_code == (401 if guarded else 200)
    assert client.post(path, headers={"Authorization": "Bearer secret"}).status_code == 200


class Solution(list):
    """What a refused request would hold on to."""


class Refusing:
    family = SimpleNamespace(response_splitter="\n", score_range=(0.0, 1.0), runner="pooling")

    def __init__(self):
        self.seen = []

    async def output_fields_async(self, question, steps, *, truncate, usage):
        held = Solution(steps)
        self.seen.append(weakref.ref(held))
        await asyncio.sleep(0)
        raise ContextLengthError(f"{len(held)} are too long")


def app_over(scorer) -> FastAPI:
    app = FastAPI()
    app.include_router(router)
    metrics = SimpleNamespace(**dict.fromkeys(("received", "failed", "scored", "cancelled"), lambda *_: None))
    app.state.step_rewards = StepRewardState(scorer, Limits(), metrics)
    app.state.openai_serving_models = None
    return app


class Slow(Letters):
    """Tokenises a text when it is told to, and says when."""

    LIMIT_S = 60  # where the event loop tokenises, nobody can tell it
    tokenizer = None  # which says how long a token is: nothing is refused before it is tokenised

    def __init__(self, happened):
        super().__init__()
        self.happened, self.begun, self.go_on = happened, threading.Event(), threading.Event()

    def render(self, question, steps):
        self.begun.set()
        self.go_on.wait(self.LIMIT_S)
        self.happened.append("tokenised")
        return super().render(question, steps)


def test_the_server_says_how_it_is_while_a_step_of_10_mb_is_tokenised_and_refused():
    happened = []
    family = Slow(happened)
    app = app_over(StepScorer(FakeAsyncEngine(), family))
    app.add_api_route("/health", lambda: happened.append("healthy"))

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            body = {"data": [{"question": "q", "steps": ["a" * 10_000_000]}]}
            asked = asyncio.ensure_future(client.post("/v1/step_rewards", json=body))
            await asyncio.to_thread(family.begun.wait, Slow.LIMIT_S)
            await client.get("/health")
            family.go_on.set()
            return await asked

    answer = asyncio.run(ask())
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "ContextLengthError"
    assert happened == ["healthy", "tokenised"]


def test_a_refused_request_leaves_nothing_for_the_collector():
    scorer = Refusing()
    app = app_over(scorer)
    gc.collect()
    gc.disable()
    try:
        with TestClient(app) as client:
            answer = client.post("/v1/step_rewards", json={"data": [{"question": "q", "steps": ["a"]}] * 3})
        assert answer.status_code == 400 and answer.json()["error"]["type"] == "ContextLengthError"
        assert [ref() for ref in scorer.seen] == [None] * 3
    finally:
        gc.enable()
