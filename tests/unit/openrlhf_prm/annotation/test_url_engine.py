"""The client of OpenAI-compatible servers, against a server of plain functions."""

import asyncio
import json

import httpx
import pytest
from scripted_engine import Characters

from openrlhf_prm.annotation.actors import UrlAnnotationActor
from openrlhf_prm.annotation.math_shepherd import MathShepherd
from openrlhf_prm.annotation.rollouts import NoTokenLimit
from openrlhf_prm.annotation.scheduler import EngineLost
from openrlhf_prm.annotation.url_engine import UrlEngine
from openrlhf_prm.cluster.workers import Completion

METRICS = """# TYPE vllm:prefix_cache_queries counter
vllm:prefix_cache_queries_total{engine="0"} 80.0
vllm:prefix_cache_queries_total{engine="1"} 20.0
# TYPE vllm:prefix_cache_hits counter
vllm:prefix_cache_hits_total{engine="0"} 30.0
"""


def choice(text: str, **more) -> dict:
    return {"text": text, "finish_reason": "stop", **more}


class Server:
    """Answers completions with the next of `answers`: choices, a status code, or an exception."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "org/policy"}]})
        if request.url.path == "/metrics":
            return httpx.Response(200, text=METRICS)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, text="why") if isinstance(answer, int) else httpx.Response(200, json=answer)


def ask(server, method: str = "generate", url: str = "http://host:8000/v1/", patience_s: float = 0.2):
    async def run():
        engine = UrlEngine(url, Characters(), patience_s, transport=httpx.MockTransport(server))
        async with engine.client:
            if method == "generate":
                return await engine.generate([1, 2], n=2, max_tokens=8, temperature=1.0, top_p=0.5)
            return await getattr(engine, method)()

    return asyncio.run(run())


class Served(UrlAnnotationActor):
    """The actor outside of Ray, with the client of a server of plain functions."""

    def __init__(self, models: dict, **options):
        answer = httpx.MockTransport(lambda request: httpx.Response(200, json={"data": [{"id": "policy", **models}]}))
        self.engine = UrlEngine("http://host:8000", Characters(), 0.2, transport=answer)
        self.annotator = MathShepherd(self.engine, Characters(), None, MathShepherd.Options(**options))


def test_a_server_says_how_long_its_context_is_or_a_flag_must():
    served = Served({"max_model_len": 512})
    assert asyncio.run(served.ready()) and served.annotator.rollouts_of("Q?", "7").limit == 510
    with pytest.raises(NoTokenLimit, match="http://host:8000 does not say how long its context is, so --rollout.max_"):
        asyncio.run(Served({}).ready())
    assert asyncio.run(Served({}, max_new_tokens=8).ready())


def test_token_ids_go_out_and_come_back(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server = Server({"choices": [choice("ab", token_ids=[7, 8]), choice("c", token_ids=[9], finish_reason="length")]})
    assert ask(server) == [Completion("ab", [7, 8], False), Completion("c", [9], True)]
    request = server.requests[-1]
    assert str(request.url) == "http://host:8000/v1/completions"
    assert request.headers["authorization"] == "Bearer secret"
    body = {"model": "org/policy", "prompt": [1, 2], "return_token_ids": True, "n": 2, "max_tokens": 8}
    assert json.loads(request.content) == {**body, "temperature": 1.0, "top_p": 0.5}


def test_text_is_tokenised_where_a_server_returns_no_ids():
    [first, _] = ask(Server({"choices": [choice("ab"), choice("", token_ids=None)]}))
    assert first.token_ids == [97, 98]


@pytest.mark.parametrize("answer", [429, 500, 503, httpx.ConnectError("refused"), httpx.ReadTimeout("slow")])
def test_a_lost_server_is_told_from_a_refused_request(answer):
    with pytest.raises(EngineLost, match="http://host:8000/v1/"):
        ask(Server(answer))
    with pytest.raises(RuntimeError, match="refused: 400 why"):
        ask(Server(400))


def test_a_server_that_never_answers_is_given_up():
    def gone(request):
        raise httpx.ConnectError("refused")

    with pytest.raises(RuntimeError, match="did not answer for 0.2 s.*ConnectError"):
        ask(gone, "ready")
    assert ask(gone, "cache_counters") == (0, 0)


def test_cache_counters_are_the_servers():
    assert ask(Server(), "cache_counters") == (30, 100)


@pytest.mark.parametrize("reason", ["abort", "error", "content_filter", None])
def test_a_sample_that_did_not_end_is_no_wrong_answer(reason):
    server = Server({"choices": [choice("ab", token_ids=[7]), choice("", token_ids=[], finish_reason=reason)]})
    with pytest.raises(EngineLost, match=f"ended by {reason!r}, neither by itself nor at the token limit"):
        ask(server)
