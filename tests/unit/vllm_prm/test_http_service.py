"""The client against answers made by hand."""

import asyncio
import json

import httpx
import pytest

from vllm_prm import http_service
from vllm_prm.errors import AuthenticationError, ContextLengthError, ServiceUnavailableError, StepScoringError
from vllm_prm.scorer import StepScorer


def answer(request):
    data = [
        {"index": index, "step_rewards": [0.5] * len(item["steps"]), "score": None}
        for index, item in enumerate(json.loads(request.content)["data"])
    ]
    usage = {"prompt_tokens": 9, "cached_tokens": 4, "computed_tokens": 5}
    return httpx.Response(200, json={"model": "m", "data": data, "usage": usage})


def scorer_over(handler, **options):
    scorer = StepScorer.from_url("http://prm:8000/v1", **options)
    scorer.engine._options["transport"] = httpx.MockTransport(handler)
    return scorer


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(http_service, "_wait", lambda response, attempt: 0.0)


def test_scores_and_usage():
    scorer = scorer_over(answer)
    assert scorer.score([("q", ["a", "b"]), ("q", [])]) == [[0.5, 0.5], []]
    assert {name: count for name, count in scorer.usage.as_dict().items() if count} == {
        "requests": 2,
        "steps": 2,
        "prompt_tokens": 9,
        "cached_tokens": 4,
        "computed_tokens": 5,
    }


def test_many_items_go_in_several_requests_and_usage_may_be_absent():
    bodies = []

    def handler(request):
        bodies.append(json.loads(request.content))
        body = json.loads(answer(request).content)
        return httpx.Response(200, json={**body, "usage": None})

    scorer = scorer_over(handler, items_per_request=2)
    assert scorer.score([("q", ["a"] * n) for n in range(1, 6)]) == [[0.5] * n for n in range(1, 6)]
    assert [len(body["data"]) for body in bodies] == [2, 2, 1]
    assert scorer.usage.steps == 15 and scorer.usage.prompt_tokens == 0
    with pytest.raises(ValueError, match="items_per_request"):
        StepScorer.from_url("http://prm:8000", items_per_request=0)


def test_async_scores():
    scorer = scorer_over(answer)
    assert asyncio.run(scorer.score_async("q", ["a", "b"])) == [0.5, 0.5]
    # A second event loop gets connections of its own.
    assert asyncio.run(scorer.score_async("q", ["a"])) == [0.5]
    assert asyncio.run(scorer.score_async("q", [])) == []


@pytest.mark.parametrize("way", ["sync", "async"])
def test_overload_and_broken_connections_are_retried(way):
    attempts = []

    def handler(request):
        attempts.append(request)
        if len(attempts) == 1:
            raise httpx.ConnectError("refused")
        return httpx.Response(503) if len(attempts) == 2 else answer(request)

    scorer = scorer_over(handler)
    if way == "sync":
        assert scorer.score([("q", ["a"])]) == [[0.5]]
    else:
        assert asyncio.run(scorer.score_async("q", ["a"])) == [0.5]
    assert len(attempts) == 3


def test_retries_end():
    scorer = scorer_over(lambda request: httpx.Response(429), max_retries=2)
    with pytest.raises(ServiceUnavailableError, match="HTTP 429 in 3 attempts"):
        scorer.score([("q", ["a"])])


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (401, None, AuthenticationError),
        (400, "BadRequestError", ValueError),
        (400, "ContextLengthError", ContextLengthError),
        (404, "NotFoundError", StepScoringError),
        (500, "InternalServerError", StepScoringError),
    ],
)
def test_errors_are_typed_and_not_retried(status, kind, error):
    attempts = []

    def handler(request):
        attempts.append(request)
        body = {"error": {"type": kind, "message": "what happened"}} if kind else {"error": "Unauthorized"}
        return httpx.Response(status, json=body)

    with pytest.raises(error, match=f"HTTP {status}"):
        scorer_over(handler).score([("q", ["a"])])
    assert len(attempts) == 1


def test_misaligned_answers_are_refused():
    def handler(request):
        return answer(httpx.Request("POST", "http://x", json={"data": [{"steps": ["a"]}]}))

    with pytest.raises(StepScoringError, match=r"align.*\[1\].*\[2\]"):
        scorer_over(handler).score([("q", ["a", "b"])])


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    seen = []

    def handler(request):
        seen.append(request.headers["authorization"])
        return answer(request)

    scorer_over(handler, api_key_env="MY_KEY").score([("q", ["a"])])
    assert seen == ["Bearer secret"]
    monkeypatch.setenv("MY_KEY", "secret\n")
    scorer_over(handler, api_key_env="MY_KEY").score([("q", ["a"])])
    assert seen == ["Bearer secret"] * 2
    for bad in ("", "\n", "sec\nret", "sécret"):
        monkeypatch.setenv("MY_KEY", bad)
        with pytest.raises(ValueError, match="MY_KEY must hold a key") as error:
            StepScorer.from_url("http://prm:8000", api_key_env="MY_KEY")
        assert not bad.strip() or bad not in str(error.value)
    with pytest.raises(ValueError, match="NOT_SET_ANYWHERE"):
        StepScorer.from_url("http://prm:8000", api_key_env="NOT_SET_ANYWHERE")
    with pytest.raises(ValueError, match="http://"):
        StepScorer.from_url("prm:8000")


def test_what_a_generative_server_says_beside_the_scores():
    def critiqued(request):
        data = [{"index": 0, "step_rewards": [1.0, None], "critiques": 3, "malformed": 2}]
        usage = {"prompt_tokens": 9, "cached_tokens": 4, "computed_tokens": 5}
        usage |= {"generated_tokens": 30, "critiques": 3, "malformed": 2}
        return httpx.Response(200, json={"model": "m", "data": data, "usage": usage})

    scorer = scorer_over(critiqued)
    [fields] = scorer.output_fields([("q", ["a", "b"])])
    assert fields == {"step_rewards": [1.0, None], "critiques": 3, "malformed": 2}
    assert (scorer.usage.generated_tokens, scorer.usage.critiques, scorer.usage.malformed) == (30, 3, 2)
    assert scorer_over(answer).output_fields([("q", ["a"])]) == [{"step_rewards": [0.5]}]
