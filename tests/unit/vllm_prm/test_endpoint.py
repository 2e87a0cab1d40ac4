"""The parts of the endpoint that need no engine."""

import asyncio
import gc
import weakref
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from vllm_prm.endpoint import EngineAuthentication, StepRewardState, router
from vllm_prm.errors import ContextLengthError
from vllm_prm.limits import Limits


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


def test_a_refused_request_leaves_nothing_for_the_collector():
    scorer = Refusing()
    app = FastAPI()
    app.include_router(router)
    metrics = SimpleNamespace(**dict.fromkeys(("received", "failed", "scored", "cancelled"), lambda *_: None))
    app.state.step_rewards = StepRewardState(scorer, Limits(), metrics)
    app.state.openai_serving_models = None
    gc.collect()
    gc.disable()
    try:
        with TestClient(app) as client:
            answer = client.post("/v1/step_rewards", json={"data": [{"question": "q", "steps": ["a"]}] * 3})
        assert answer.status_code == 400 and answer.json()["error"]["type"] == "ContextLengthError"
        assert [ref() for ref in scorer.seen] == [None] * 3
    finally:
        gc.enable()
