"""The client against answers made by hand."""

import asyncio
import gzip
import http.server
import json
import threading

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
    monkeypatch.setattr(http_service, "_wait", lambda asked, attempt: 0.0)


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


def test_patience_ends_and_says_why(monkeypatch, caplog):
    """A server that says nothing but "later": each pause is 40 s, and patience 100 s."""
    clock, waits = [0.0], []

    async def sleep(seconds):
        waits.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(http_service, "_wait", lambda asked, attempt: 40.0)
    monkeypatch.setattr(http_service.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(http_service.asyncio, "sleep", sleep)
    scorer = scorer_over(lambda request: httpx.Response(500, json={"error": {"message": "no engine"}}), patience=100)
    with pytest.raises(ServiceUnavailableError, match="HTTP 500 in 3 attempts over 80 s: no engine"):
        scorer.score([("q", ["a"])])
    assert waits == [40.0, 40.0]
    said = [record.message for record in caplog.records]
    assert [line.partition("another ")[2] for line in said] == ["100 s", "60 s"]


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("7", 7.0), ("1.5", 1.5), ("99999", 30.0), ("²", None), ("-1", None), ("nan", None), ("Wed, 21 Oct", None)],
)
def test_retry_after_counts_where_it_is_a_number(monkeypatch, asked, seconds):
    monkeypatch.undo()
    waited = http_service._wait(asked, 2)
    assert waited == seconds if seconds is not None else 1.0 <= waited <= 2.0


class Dripping(http.server.BaseHTTPRequestHandler):
    """Sends a byte of its answer now and then, for ever."""

    protocol_version = "HTTP/1.1"
    head_first = True

    def do_POST(self):
        drip = b" " if self.head_first else b"X"
        if self.head_first:
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
        try:
            while not self.server.ended.wait(0.05):
                self.wfile.write(drip)
                self.wfile.flush()
        except OSError:
            pass

    def log_message(self, *_):
        pass


class DrippingHead(Dripping):
    head_first = False


@pytest.mark.parametrize("handler", [Dripping, DrippingHead])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_an_answer_that_drips_has_an_end(handler, way):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.ended, server.daemon_threads = threading.Event(), True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        scorer = StepScorer.from_url(f"http://127.0.0.1:{server.server_port}", timeout=0.5)
        with pytest.raises(ServiceUnavailableError, match="has not answered within 0.5 s"):
            scorer.score([("q", ["a"])]) if way == "sync" else asyncio.run(scorer.score_async("q", ["a"]))
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()


def test_an_endless_or_packed_answer_is_refused():
    endless = scorer_over(lambda request: httpx.Response(200, content=b" " * (2 << 20)))
    with pytest.raises(StepScoringError, match="more than 1048640 bytes"):
        endless.score([("q", ["a"])])
    bomb = gzip.compress(b" " * (1 << 20))
    packed = scorer_over(lambda request: httpx.Response(200, content=bomb, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(StepScoringError, match="packed its answer .gzip."):
        packed.score([("q", ["a"])])


@pytest.mark.parametrize(
    ("rewards", "place"),
    [
        ('["0.9"]', "step_rewards.0: Input should be a valid number"),
        ("[true]", "step_rewards.0: Input should be a valid number"),
        ("[NaN]", "step_rewards.0: Input should be a finite number"),
        ("[1e999]", "step_rewards.0: Input should be a finite number"),
        ('"0.9"', "step_rewards: Input should be a valid array"),
        ("null", "step_rewards: Input should be a valid array"),
    ],
)
def test_what_is_no_score_is_refused(rewards, place):
    content = '{"model": "m", "data": [{"index": 0, "step_rewards": ' + rewards + "}]}"
    with pytest.raises(StepScoringError, match=f"data.0.*{place}"):
        scorer_over(lambda request: httpx.Response(200, content=content)).score([("q", ["a"])])


def test_whole_numbers_are_scores_and_null_is_where_a_solution_may_be_cut():
    content = '{"model": "m", "data": [{"index": 0, "step_rewards": [1, null]}]}'
    scorer = scorer_over(lambda request: httpx.Response(200, content=content))
    assert scorer.score([("q", ["a", "b"])], truncate=True) == [[1.0, None]]
    with pytest.raises(StepScoringError, match=r"data\.0\.step_rewards\.1 is null, and nothing was to be cut"):
        scorer.score([("q", ["a", "b"])])


@pytest.mark.parametrize("indices", [[1, 0], [0], [0, 0], [0, 1, 2]])
def test_solutions_answered_out_of_order_are_refused(indices):
    data = [{"index": index, "step_rewards": [0.5]} for index in indices]
    scorer = scorer_over(lambda request: httpx.Response(200, json={"model": "m", "data": data}))
    with pytest.raises(StepScoringError, match="asked were 2 in order"):
        scorer.score([("q", ["a"]), ("r", ["b"])])


def test_synchronous_calls_work_where_a_loop_runs_already():
    async def notebook():
        return scorer_over(answer).score([("q", ["a"])])

    assert asyncio.run(notebook()) == [[0.5]]
    scorer = scorer_over(answer)
    assert scorer.score([("q", ["a"])]) == [[0.5]]
    scorer.shutdown()
    assert scorer.score([("q", ["a"])]) == [[0.5]]
    with pytest.raises(ValueError, match="timeout must be above 0"):
        scorer_over(answer, timeout=0)


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (401, None, AuthenticationError),
        (400, "BadRequestError", ValueError),
        (400, "ContextLengthError", ContextLengthError),
        (404, "NotFoundError", StepScoringError),
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
        data = [{"index": 0, "step_rewards": [1.0, None], "critiques": 3, "malformed": 2, "empty_critiques": 1}]
        usage = {"prompt_tokens": 9, "cached_tokens": 4, "computed_tokens": 5}
        usage |= {"generated_tokens": 30, "critiques": 3, "malformed": 2, "empty_critiques": 1}
        return httpx.Response(200, json={"model": "m", "data": data, "usage": usage})

    scorer = scorer_over(critiqued)
    [fields] = scorer.output_fields([("q", ["a", "b"])])
    wrong = {"malformed": 2, "empty_critiques": 1, "cut_off_critiques": 0}  # an older server knows the first alone
    assert fields == {"step_rewards": [1.0, None], "critiques": 3, **wrong}
    assert {"generated_tokens": 30, "critiques": 3, **wrong}.items() <= scorer.usage.as_dict().items()
    assert scorer_over(answer).output_fields([("q", ["a"])]) == [{"step_rewards": [0.5]}]
