"""`vllm-prm serve` for real: answers and refusals, limits, metrics, cancellation, weight updates, /pooling."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import httpx
import psutil
import pytest
import schemathesis
from engine_cores import engine_cores
from hypothesis import HealthCheck, Phase, given, seed, settings
from servers import log_of, process_of, running_server, until_ready
from step_reward_server import CLIENT, HEADERS, LIMIT_S, leaves_the_engine_free, metrics, moved, post, until
from tiny_prm import Reference, save_tiny_prm, worst

from vllm_prm.errors import AuthenticationError, ContextLengthError
from vllm_prm.scorer import StepScorer

pytestmark = pytest.mark.stack

QUESTION = "What is 2+3*4?"
STEPS = [f"Step {i}: we compute {i}*7 = {i * 7}." for i in range(10)]
POLICY = Path(__file__).parents[2] / "benchmarks" / "policies" / "short"
MAX_BYTES = 400_000
FLAGS = "--dtype float32 --enforce-eager --kv-cache-memory-bytes 33554432 --max-num-seqs 16 --api-key secret".split()
LIMITS = ["--max-items", "600", "--max-steps", "64", "--max-bytes", str(MAX_BYTES)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_prm(tmp_path_factory.mktemp("prm"))


@pytest.fixture(scope="module")
def reference(checkpoint) -> Reference:
    return Reference(checkpoint)


@pytest.fixture(scope="module")
def servers(checkpoint, tmp_path_factory):
    """The PRM's, with an API key, small limits, and vLLM's development routes, which can change the weights; and one
    that generates with a small policy. They start side by side."""
    command = ["vllm_prm.serve", "serve", str(checkpoint), *FLAGS, *LIMITS]
    generation = ["vllm.entrypoints.openai.api_server", "--model", str(POLICY), "--enforce-eager"]
    logs = tmp_path_factory.mktemp("logs")
    with (
        running_server(command, logs / "prm.log", {"VLLM_SERVER_DEV_MODE": "1"}) as url,
        running_server(generation, logs / "generation.log") as generation_url,
    ):
        yield until_ready(url), until_ready(generation_url)


@pytest.fixture(scope="module")
def server(servers):
    return servers[0]


# -- answers ---------------------------------------------------------------


def test_scores_over_http(server, reference):
    body = {"question": QUESTION, "steps": STEPS, "aggregate": "min"}
    response = post(server, body)
    assert response.status_code == 200, response.text
    answer = response.json()
    [entry] = answer["data"]
    assert worst(entry["step_rewards"], reference(QUESTION, STEPS)) < 1e-4
    assert entry["score"] == min(entry["step_rewards"])
    usage = answer["usage"]
    assert usage["prompt_tokens"] == usage["cached_tokens"] + usage["computed_tokens"]

    again = post(server, body).json()
    assert again["usage"]["computed_tokens"] == 0
    assert again["data"] == answer["data"]
    assert answer["id"] != again["id"] and answer["object"] == "list"
    assert post(server, {**body, "return_usage": False}).json()["usage"] is None


@pytest.mark.parametrize("aggregate", ["min", "prod", "last", "mean"])
def test_aggregates(server, aggregate):
    from vllm_prm.aggregation import SCORE_AGGREGATIONS

    [entry] = post(server, {"question": QUESTION, "steps": STEPS, "aggregate": aggregate}).json()["data"]
    assert entry["score"] == SCORE_AGGREGATIONS[aggregate](entry["step_rewards"])


def test_a_response_is_cut(server, reference):
    body = {"data": [{"question": QUESTION, "response": "one\n\ntwo\n", "splitter": "\n"}]}
    answer = post(server, body).json()
    assert worst(answer["data"][0]["step_rewards"], reference(QUESTION, ["one", "two"])) < 1e-4


def test_the_route_is_documented(server):
    schema = CLIENT.get(f"{server}/openapi.json").json()
    route = schema["paths"]["/v1/step_rewards"]["post"]
    assert {"200", "400", "401", "404", "413"} <= set(route["responses"])
    assert "StepRewardRequest" in json.dumps(route["requestBody"])
    fields = schema["components"]["schemas"]["StepRewardRequest"]["properties"]
    assert {"model", "data", "question", "messages", "steps", "response", "splitter", "return_usage"} <= set(fields)
    assert "openapi.json" in CLIENT.get(f"{server}/docs").text


# -- refusals ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "give data"),
        ({"question": QUESTION}, "exactly one of steps and response"),
        ({"question": QUESTION, "step": STEPS}, "step"),
        ({"question": QUESTION, "steps": "not a list"}, "steps"),
        ({"question": QUESTION, "steps": STEPS, "aggregate": "median"}, "aggregate"),
        ({"data": []}, "at least 1 item"),
        ({"data": [{"question": QUESTION, "steps": []}] * 601}, "takes 600 per request (--max-items)"),
        ({"question": QUESTION, "steps": ["a"] * 65}, "takes 64 (--max-steps)"),
        ({"question": QUESTION, "steps": ["x" * 60] * 12}, "max_model_len"),
        ({"messages": [{"role": "user", "content": "q"}], "steps": ["a"]}, "no chat template"),
    ],
)
def test_refusals_have_the_format_of_vllm(server, body, said):
    before = metrics(server)
    response = post(server, body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["code"] == 400
    assert said in error["message"]
    assert moved(server, before) == {"vllm_prm:requests_total": 1, "vllm_prm:errors_total": 1}


def test_malformed_json_is_refused(server):
    for content in (b"{", b"[" * 50_000, b"\xff", b'{"question": "\\ud800", "steps": ["\\ud800"]}'):
        headers = {**HEADERS, "content-type": "application/json"}
        response = CLIENT.post(f"{server}/v1/step_rewards", content=content, headers=headers)
        assert response.status_code == 400, content[:20]
        assert response.json()["error"]["message"]


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_beyond_the_limit_is_refused_unread(server, announced):
    """With a Content-Length at once, without one (chunked) when too much has come."""
    body = json.dumps({"question": "q" * MAX_BYTES, "steps": ["a"]}).encode() * (1 if announced else 100)
    content = body if announced else (body[start : start + 10_000] for start in range(0, len(body), 10_000))
    headers = {**HEADERS, "content-type": "application/json"}
    response = CLIENT.post(f"{server}/v1/step_rewards", content=content, headers=headers)
    assert response.status_code == 413
    assert f"{MAX_BYTES} bytes" in response.json()["error"]["message"]
    assert post(server, {"question": "q" * 200, "steps": ["a"]}).status_code == 200


def test_a_wrong_key_never_reaches_the_engine(server):
    body = {"question": "never seen", "steps": STEPS}
    assert post(server, body).status_code == 200  # the counters exist from here on
    before = metrics(server)
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
        assert post(server, {**body, "question": "not this either"}, headers=headers).status_code == 401
        for route in ("/pooling", "/invocations"):
            pooled = CLIENT.post(f"{server}{route}", json={"data": body}, headers=headers)
            assert pooled.status_code == 401, route
    after = metrics(server)
    for name in ("vllm_prm:requests_total", "vllm:prompt_tokens_total", "vllm:request_success_total"):
        assert after[name] == before[name] > 0, name


def test_an_unknown_model_is_refused(server):
    other = post(server, {"question": QUESTION, "steps": STEPS, "model": "other"})
    assert other.status_code == 404 and other.json()["error"]["type"] == "NotFoundError"


def test_the_schema_holds_no_request_that_breaks_the_server(server):
    """Requests made from the API's own schema, valid and not: no 5xx, no answer the schema does not know, no hang."""
    schema = schemathesis.openapi.from_url(f"{server}/openapi.json").include(path="/v1/step_rewards")
    [operation] = [result.ok() for result in schema.get_all_operations()]
    checks = schemathesis.checks
    wanted = [checks.not_a_server_error]
    wanted += [
        check
        for check in checks.CHECKS.get_all()
        if check.__name__ in ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
    ]
    assert len(wanted) == 4
    statuses: dict[int, int] = {}

    def answers(case):
        response = case.call(headers=HEADERS, timeout=LIMIT_S)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        case.validate_response(response, checks=wanted, headers=HEADERS)

    def answers_with_scores(case):
        """The tiny PRM has no chat template, and any other name of a model is refused before anything else."""
        if isinstance(case.body, dict):
            case.body.pop("model", None)
            for item in [case.body, *(case.body.get("data") or [])]:
                if item.pop("messages", None):
                    item["question"] = "in place of messages"
        answers(case)

    modes = schemathesis.GenerationMode
    for mode, check in ((modes.POSITIVE, answers_with_scores), (modes.NEGATIVE, answers)):
        rules = settings(
            max_examples=120,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seed(1)(rules(given(operation.as_strategy(generation_mode=mode))(check)))()
    print("schemathesis:", statuses)
    assert sum(statuses.values()) >= 200 and statuses.get(200, 0) > 10 and statuses.get(400, 0) > 10


# -- metrics, cancellation, weights ---------------------------------------------------------------


def test_metrics_count_what_was_done(server):
    before = metrics(server)
    body = {"data": [{"question": "counted", "steps": STEPS[:n]} for n in (2, 3)]}
    first = post(server, body).json()["usage"]
    second = post(server, body).json()["usage"]
    gained = moved(server, before)
    assert gained.pop("vllm_prm:request_latency_seconds_sum") > 0
    assert gained == {
        "vllm_prm:requests_total": 2,
        "vllm_prm:solutions_total": 4,
        "vllm_prm:steps_total": 10,
        "vllm_prm:prompt_tokens_total": 2 * first["prompt_tokens"],
        "vllm_prm:cached_tokens_total": first["cached_tokens"] + second["cached_tokens"],
        "vllm_prm:computed_tokens_total": first["computed_tokens"],
        "vllm_prm:score_cache_hits_total": 5,
        "vllm_prm:request_latency_seconds_count": 2,
    }


def test_a_client_that_goes_away_cancels_its_work(server):
    """600 solutions are asked for, and the client leaves."""
    data = [{"question": f"{n:03d}" + "q" * 400, "steps": ["a" * 20, "b" * 20]} for n in range(600)]
    leaves_the_engine_free(server, data, requests=1, tokens=20)


def load_weights(server, path):
    """What a trainer does: hold requests back, load, drop cached keys and values, go on."""
    steps = [
        ("/pause?mode=wait", None),
        ("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(path)}}),
        ("/reset_prefix_cache", None),
        ("/resume", None),
    ]
    for route, body in steps:
        assert CLIENT.post(f"{server}{route}", json=body).status_code == 401, "without the key"
        response = CLIENT.post(f"{server}{route}", json=body, headers=HEADERS)
        assert response.status_code == 200, response.text
        if route == "/reset_prefix_cache":
            assert response.json() == {"success": True}


def test_a_weight_update_clears_the_score_cache(server, checkpoint, reference, tmp_path):
    other = Reference(save_tiny_prm(tmp_path, seed=7))
    old, new = reference(QUESTION, STEPS), other(QUESTION, STEPS)
    assert worst(old, new) > 0.05, "weights that score alike would prove nothing"
    body = {"question": QUESTION, "steps": STEPS}
    assert worst(post(server, body).json()["data"][0]["step_rewards"], old) < 1e-4
    # Others go on asking meanwhile: each answer must come from one set of weights.
    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            count = 1 + len(answers) % len(STEPS)
            response = post(server, {"question": QUESTION, "steps": STEPS[:count]})
            answers.append((count, response.status_code, response.json()))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert until(lambda: len(answers) >= 20)
        load_weights(server, tmp_path)
        updated = post(server, body).json()["data"][0]["step_rewards"]
        # More than were under way when the update was done.
        enough = len(answers) + 20
        assert until(lambda: len(answers) >= enough)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        load_weights(server, checkpoint)
    assert worst(updated, new) < 1e-4
    assert worst(post(server, body).json()["data"][0]["step_rewards"], old) < 1e-4
    kinds = {"old": 0, "new": 0}
    for count, status, answer in answers:
        assert status == 200, answer
        scores = answer["data"][0]["step_rewards"]
        [kind] = [name for name, all_of in (("old", old), ("new", new)) if worst(scores, all_of[:count]) < 1e-4]
        kinds[kind] += 1
    print("answers during the update:", kinds)
    assert kinds["old"] and kinds["new"]


# -- other ways in ---------------------------------------------------------------


def test_pooling_with_data(server, reference):
    items = [{"question": QUESTION, "steps": STEPS}, {"question": "Other", "response": "a\nb\n"}]
    for data, expected in (
        (items[0], [reference(QUESTION, STEPS)]),
        (items, [reference(QUESTION, STEPS), reference("Other", ["a", "b"])]),
    ):
        response = CLIENT.post(f"{server}/pooling", json={"data": data}, headers=HEADERS)
        assert response.status_code == 200, response.text
        got = response.json()["data"]
        assert [entry["index"] for entry in got] == list(range(len(expected)))
        for entry, scores in zip(got, expected, strict=True):
            assert worst(entry["step_rewards"], scores) < 1e-4
    for wrong in ({"question": QUESTION}, [], {"question": QUESTION, "steps": []}, "text"):
        response = CLIENT.post(f"{server}/pooling", json={"data": wrong}, headers=HEADERS)
        assert response.status_code == 400 and "data must" in response.json()["error"]["message"], response.text
    too_long = {"question": QUESTION, "steps": ["x" * 60] * 12}
    response = CLIENT.post(f"{server}/pooling", json={"data": too_long}, headers=HEADERS)
    assert response.status_code == 400 and "max_model_len" in response.json()["error"]["message"]
    cut = {"data": items[0], "truncate_prompt_tokens": 4}
    response = CLIENT.post(f"{server}/pooling", json=cut, headers=HEADERS)
    assert response.status_code == 400 and "truncate_prompt_tokens" in response.json()["error"]["message"]


@pytest.mark.parametrize("route", ["/pooling", "/invocations"])
@pytest.mark.parametrize(
    "body",
    [
        {"input": "hello"},
        {"input": ["hello", "you"]},
        {"input": [5, 6, 7]},
        {"input": [[5, 6], [7]], "encoding_format": "base64"},
        {"input": "hello", "task": "token_classify"},
        {"input": "hello", "data": {"question": QUESTION, "steps": STEPS}},
    ],
)
def test_pooling_without_steps_is_refused(server, route, body):
    """vLLM would answer with empty lists."""
    response = CLIENT.post(f"{server}{route}", json=body, headers=HEADERS)
    assert response.status_code == 400, response.text
    assert "scores the steps" in response.json()["error"]["message"], response.text


def test_guided_generation(servers, monkeypatch, capsys):
    """Best-of-N and beam search of the example, with a policy that really adds numbers and a PRM of random weights: the
    search must end in solutions that this PRM likes better than what the policy writes unguided."""
    from examples.guided_generation.search import main

    monkeypatch.setenv("PRM_KEY", "secret")
    flags = ["--prm-url", servers[0], "--generation-url", servers[1], "--prm-api-key-env", "PRM_KEY"]
    flags += ["--question", "Q: 17+a15+b21+c64=?\n", "--max-tokens", "150", "--temperature", "1.0"]
    assert main([*flags, "--method", "best_of_n", "--samples", "12"]) == 0
    assert main([*flags, "--method", "beam", "--width", "3", "--expand", "4", "--max-steps", "12"]) == 0
    sampled, searched = map(json.loads, capsys.readouterr().out.splitlines())
    print(sampled, searched, sep="\n")
    assert len(sampled["scores_of_all"]) == 12 and len(searched["scores_of_all"]) == 3
    for result in (sampled, searched):
        assert result["finished"] and result["response"].splitlines()[-1].startswith("Answer: ")
        assert result["score"] == max(result["scores_of_all"]) == min(result["step_rewards"])
        assert len(result["step_rewards"]) == len(result["response"].splitlines())
    assert searched["score"] > sum(sampled["scores_of_all"]) / 12
    # Growing solutions: most steps were known when they were asked for.
    usage = searched["prm_usage"]
    assert usage["computed_tokens"] < 0.6 * usage["prompt_tokens"]

    assert main([*flags, "--generation-url", "http://127.0.0.1:9", "--method", "best_of_n"]) == 1
    assert "ConnectError" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*flags, "--prm-api-key-env", "NOT_SET_ANYWHERE"])
    assert "NOT_SET_ANYWHERE" in capsys.readouterr().err


def test_url_scorer(server, reference, monkeypatch):
    monkeypatch.setenv("PRM_KEY", "secret")
    scorer = StepScorer.from_url(server, api_key_env="PRM_KEY")
    items = [(QUESTION, STEPS), (QUESTION, []), ("Other", ["a", "b"])]
    for got, item in zip(scorer.score(items), items, strict=True):
        assert got == [] or worst(got, reference(*item)) < 1e-4

    async def concurrently():
        return await asyncio.gather(*[scorer.score_async(QUESTION, STEPS[:n]) for n in range(11)])

    for n, got in enumerate(asyncio.run(concurrently())):
        assert got == [] or worst(got, reference(QUESTION, STEPS[:n])) < 1e-4
    long = ["x" * 60] * 12
    with pytest.raises(ContextLengthError):
        scorer.score([(QUESTION, long)])
    assert scorer.score([(QUESTION, long)], truncate=True)[0][-1] is None
    with pytest.raises(ValueError, match="HTTP 413"):
        scorer.score([("q" * MAX_BYTES, ["a"])])
    scorer.shutdown()

    monkeypatch.setenv("PRM_KEY", "wrong")
    with pytest.raises(AuthenticationError):
        StepScorer.from_url(server, api_key_env="PRM_KEY").score(items)


def test_64_concurrent_clients_lose_nothing(server, reference):
    chains = [("Client", [f"{n} says {n * 7}", *STEPS[: n % 10]]) for n in range(64)]

    async def one(client, question, steps):
        answer = await client.post(f"{server}/v1/step_rewards", json={"question": question, "steps": steps})
        return answer.json()["data"][0]["step_rewards"]

    async def all_of_them():
        async with httpx.AsyncClient(
            headers=HEADERS, timeout=LIMIT_S, limits=httpx.Limits(max_connections=64)
        ) as client:
            return await asyncio.gather(*[one(client, *chain) for chain in chains])

    for got, chain in zip(asyncio.run(all_of_them()), chains, strict=True):
        assert worst(got, reference(*chain)) < 1e-4


def test_score_file_resumes(server, reference, tmp_path, monkeypatch):
    from vllm_prm.serve import main

    monkeypatch.setenv("PRM_KEY", "secret")
    rows = [{"id": n, "question": QUESTION, "steps": STEPS[:n]} for n in (1, 2, 3)]
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    partial = tmp_path / "out.jsonl.partial"
    command = ["score", "--input", str(source), "--output", str(output), "--url", server, "--api-key-env", "PRM_KEY"]
    command += ["--aggregate", "min"]
    with monkeypatch.context() as patched:
        patched.setattr("vllm_prm.score_file._start", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(SystemExit):
            main(command)
    # As after a kill: one line written out, the second cut short.
    kept = {**rows[0], "step_rewards": [0.125], "score": 0.125}
    with partial.open("a") as file:
        file.write(json.dumps(kept) + '\n{"id": 2, "ques')
    main(command)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["id"] for line in lines] == [1, 2, 3]
    assert lines[0] == kept
    assert worst(lines[2]["step_rewards"], reference(QUESTION, STEPS[:3])) < 1e-4
    assert not partial.exists()


def test_score_from_stdin_to_stdout(server, reference):
    """Results alone on stdout, the progress bar on stderr."""
    rows = [{"id": n, "question": QUESTION, "steps": STEPS[:n]} for n in (1, 2)]
    done = subprocess.run(
        [sys.executable, "-m", "vllm_prm.serve", "score", "--url", server, "--api-key-env", "PRM_KEY"],
        input="".join(json.dumps(row) + "\n" for row in rows),
        env={**os.environ, "PRM_KEY": "secret"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["id"] for line in lines] == [1, 2]
    assert worst(lines[1]["step_rewards"], reference(QUESTION, STEPS[:2])) < 1e-4
    assert "2/2" in done.stderr


# -- faults ----------------------------------------------------------------


def test_the_key_is_not_in_the_process_list(server):
    assert "secret" not in " ".join(psutil.Process(process_of(server).pid).cmdline())


def test_bad_bodies_are_a_line_each_in_the_log(server):
    before = len(log_of(server))
    for body in (b"{", b"[]", b'{"question": 1}', b'{"question": "q", "steps": ["a"], "nothing": 1}', b"\xff"):
        headers = {**HEADERS, "content-type": "application/json"}
        assert CLIENT.post(f"{server}/v1/step_rewards", content=body, headers=headers).status_code == 400
    said = log_of(server)[before:]
    assert "Traceback" not in said and len(said.splitlines()) < 10


def test_a_text_that_no_context_holds_is_refused_before_it_is_tokenised(server):
    answer = post(server, {"question": QUESTION, "steps": ["1+" * (MAX_BYTES // 3)]})
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "ContextLengthError"
    assert "characters in 1 steps" in answer.json()["error"]["message"]


def test_a_dead_engine_ends_the_server_with_a_code_that_says_so(server):
    """Last: nothing is there afterwards."""
    process = process_of(server)
    [core] = engine_cores(process.pid, 1)
    core.kill()
    assert process.wait(LIMIT_S) == 1
    assert "the engine died, so the server ends" in log_of(server)
