"""The parts of the endpoint that need no engine."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from vllm_prm.endpoint import EngineAuthentication


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
