"""`vllm-prm serve` for the families that differ in what they need of the engine: a head of its own, two models, and
critiques that are generated. Scores over HTTP against a plain transformers forward, cancellation, refusals, metrics."""

import json
import os
from contextlib import ExitStack

import pytest
import torch
from engine_cores import engine_cores
from servers import process_of, running_server, until_ready
from step_reward_server import CLIENT, HEADERS, LIMIT_S, leaves_the_engine_free, metrics, moved, post, until
from tiny_checkpoints import CASES, EXAMPLE, PlainForward
from tiny_critic import BAD, GOOD, GREEDY, QUESTION, UNREADABLE, lessons, save_taught_critic
from tiny_pair import Published, save_pair
from tiny_prm import worst
from transformers import AutoModelForCausalLM

from vllm_prm.families import load_family
from vllm_prm.scorer import StepScorer
from vllm_prm.serve import main

pytestmark = pytest.mark.stack

FLAGS = "--dtype float32 --enforce-eager --kv-cache-memory-bytes 33554432 --max-num-seqs 16 --api-key secret".split()
STEPS = [f"Step {i}: she buys {i} and has {i * 7}{'.' * (i % 2)}" for i in range(1, 9)]
BETA = 0.05


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "token_classification": CASES["token_classification"].save(folder / "head"),
        "from a file": CASES["from a file"].save(folder / "file"),
        "implicit": save_pair(folder / "implicit", "qwen2", beta=BETA, cumulative=True),
        "generative": save_taught_critic(folder / "critic"),
    }


@pytest.fixture(scope="module")
def servers(checkpoints, tmp_path_factory):
    """Name of the family -> URL. They start side by side, with vLLM's development routes, which can hold an engine
    back."""
    logs = tmp_path_factory.mktemp("logs")
    options = {
        # As a user names it; the server runs in another process.
        "from a file": ["--family", os.path.relpath(EXAMPLE), "--family-options", '{"good": "+", "bad": "-"}'],
        "implicit": ["--family-options", '{"reference_engine_args": {"max_num_seqs": 8}}'],
        "generative": ["--family", "generative", "--family-options", json.dumps({"style": "genprm", **GREEDY})],
    }
    with ExitStack() as started:
        urls = {}
        for name, path in checkpoints.items():
            command = ["vllm_prm.serve", "serve", str(path), *FLAGS, *options.get(name, [])]
            log = logs / f"{name}.log"
            urls[name] = started.enter_context(running_server(command, log, {"VLLM_SERVER_DEV_MODE": "1"}))
        yield {name: until_ready(url) for name, url in urls.items()}


def scores_of(server, question, steps):
    response = post(server, {"question": question, "steps": steps})
    assert response.status_code == 200, response.text
    return response.json()["data"][0]["step_rewards"]


def score_file(server, tmp_path, monkeypatch, rows):
    """What `vllm-prm score --url` writes."""
    monkeypatch.setenv("PRM_KEY", "secret")
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(["score", "--url", server, "--api-key-env", "PRM_KEY", "--input", str(source), "--output", str(output)])
    return [json.loads(line) for line in output.read_text().splitlines()]


@pytest.mark.parametrize("name", ["token_classification", "implicit", "generative"])
def test_every_family_is_documented_guarded_and_refuses_alike(servers, name):
    server = servers[name]
    schema = CLIENT.get(f"{server}/openapi.json").json()
    assert "/v1/step_rewards" in schema["paths"] and CLIENT.get(f"{server}/docs").status_code == 200
    body = {"question": QUESTION, "steps": GOOD}
    before = metrics(server)
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert post(server, body, headers=headers).status_code == 401
        # No other way to the model is open either; a tokenizer and a sign of life may be.
        given = {"model": "x", "prompt": "x", "input": "x", "data": body, "messages": []}
        posts = [route for route, operations in schema["paths"].items() if "post" in operations]
        status = {route: CLIENT.post(f"{server}{route}", json=given, headers=headers).status_code for route in posts}
        harmless = {"/tokenize", "/detokenize", "/ping"}
        assert {route for route, code in status.items() if code != 401} <= harmless, status
    after = metrics(server)
    for counter in ("vllm_prm:requests_total", "vllm:request_success_total", "vllm:prompt_tokens_total"):
        assert after[counter] == before[counter], counter

    for wrong, said in (
        ({"question": QUESTION}, "exactly one of steps and response"),
        ({"question": QUESTION, "steps": ["a"] * 5000}, "--max-steps"),
        ({"question": QUESTION, "steps": ["word " * 1300] * 8}, "max_model_len"),
    ):
        response = post(server, wrong)
        assert response.status_code == 400 and said in response.json()["error"]["message"], response.text
    assert post(server, {**body, "model": "other"}).status_code == 404
    assert CLIENT.get(f"{server}/health").status_code == 200


def test_a_head_of_its_own(servers, checkpoints):
    server, path = servers["token_classification"], checkpoints["token_classification"]
    reference = PlainForward(CASES["token_classification"], path, load_family(str(path)))
    cases = [(QUESTION, STEPS), (QUESTION, ["one", "", "three"]), (QUESTION, ["alone"]), (QUESTION, ["a"] * 200)]
    figures = [worst(scores_of(server, *case), reference(*case)) for case in cases]
    figures += [
        worst(scores_of(server, "Growing?", STEPS[:n]), reference("Growing?", STEPS[:n]))
        for n in range(1, len(STEPS) + 1)
    ]
    print("token_classification over HTTP", max(figures))
    assert max(figures) < 1e-4
    messages = [{"role": "user", "content": "In a chat?"}]
    answer = post(server, {"messages": messages, "response": "a\n\nb", "splitter": "\n\n", "aggregate": "prod"}).json()
    expected = reference(messages, ["a", "b"])
    assert worst(answer["data"][0]["step_rewards"], expected) < 1e-4
    assert answer["data"][0]["score"] == pytest.approx(expected[0] * expected[1], abs=1e-4)
    assert set(answer["data"][0]) == {"index", "object", "step_rewards", "score"}
    assert set(answer["usage"]) == {"prompt_tokens", "cached_tokens", "computed_tokens"}


def test_a_family_from_a_file(servers, checkpoints):
    """It renders and decodes in the server's process; the engine's knows nothing of it."""
    server, case, path = servers["from a file"], CASES["from a file"], checkpoints["from a file"]
    reference = PlainForward(case, path, load_family(str(path), EXAMPLE, options=case.options))
    figure = max(worst(scores_of(server, QUESTION, STEPS[:n]), reference(QUESTION, STEPS[:n])) for n in (1, 4, 8))
    print("a family from a file over HTTP", figure)
    assert figure < 1e-4
    body = {"data": {"question": QUESTION, "steps": STEPS}}
    [pooled] = CLIENT.post(f"{server}/pooling", json=body, headers=HEADERS).json()["data"]
    assert worst(pooled["step_rewards"], reference(QUESTION, STEPS)) < 1e-4


# -- two models ---------------------------------------------------------------


def test_two_models(servers, checkpoints):
    server, published = servers["implicit"], Published(checkpoints["implicit"])
    before = metrics(server)
    figures = [
        worst(scores_of(server, QUESTION, STEPS[:n]), published(QUESTION, STEPS[:n], BETA).tolist())
        for n in range(1, len(STEPS) + 1)
    ]
    print("implicit over HTTP", max(figures))
    signed = post(server, {"question": "q", "steps": ["a"], "aggregate": "prod"})
    assert signed.status_code == 400 and "needs scores in [0, 1]" in signed.json()["error"]["message"]
    assert max(figures) < 1e-4
    assert published(QUESTION, STEPS, BETA).abs().max() > 0.1, "scores near 0 would prove nothing"

    gained = moved(server, before)
    assert gained["vllm_prm:solutions_total"] == len(STEPS) and gained["vllm_prm:steps_total"] == 36
    assert gained["vllm_prm:score_cache_hits_total"] > 0
    assert gained["vllm_prm:computed_tokens_total"] < gained["vllm_prm:prompt_tokens_total"]
    again = post(server, {"question": QUESTION, "steps": STEPS}).json()["usage"]
    assert again["computed_tokens"] == 0 and again["cached_tokens"] == again["prompt_tokens"]


def test_leaving_frees_the_engine(servers):
    data = [{"question": f"{n:03d}" + "q" * 300, "steps": ["a" * 50, "b" * 50]} for n in range(300)]
    leaves_the_engine_free(servers["implicit"], data, requests=1, tokens=100)


# -- critiques ---------------------------------------------------------------


def test_critiques(servers, checkpoints):
    server, path = servers["generative"], checkpoints["generative"]
    before = metrics(server)
    items = [{"question": QUESTION, "steps": GOOD}, {"question": QUESTION, "steps": BAD}]
    answer = post(server, {"data": items, "aggregate": "min"}).json()
    good, bad = answer["data"]
    assert min(*good["step_rewards"], bad["step_rewards"][0]) > 0.5 > bad["step_rewards"][1] == bad["score"]
    assert [(entry["critiques"], entry["malformed"]) for entry in (good, bad)] == [(1, 0), (1, 0)]

    family = load_family(str(path), "generative", options={"style": "genprm", **GREEDY})
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    yes, no = family.style.choices
    expected = []
    for prompt, said in sorted(lessons(path)):
        for word in {yes, no} & set(said):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + said[: said.index(word)]])).logits
            expected.append(logits[0, -1, [yes, no]].softmax(0)[0].item())
    scores = sorted({*good["step_rewards"], *bad["step_rewards"]})
    figure = worst(scores, sorted(expected))
    print("generative over HTTP", figure)
    assert figure < 1e-4

    usage = answer["usage"]
    assert usage["critiques"] == 2 and usage["malformed"] == 0 and usage["generated_tokens"] > 20
    assert usage["prompt_tokens"] == usage["cached_tokens"] + usage["computed_tokens"]
    gained = moved(server, before)
    for name in ("critiques", "generated_tokens", "computed_tokens"):
        assert gained[f"vllm_prm:{name}_total"] == usage[name]
    assert "vllm_prm:malformed_judgements_total" not in gained


def test_malformed_critiques_are_counted(servers, tmp_path, monkeypatch):
    """What cannot be read has no score."""
    server = servers["generative"]
    before = metrics(server)
    unknown = {"question": QUESTION, "steps": UNREADABLE}
    [entry] = post(server, {**unknown, "aggregate": "mean"}).json()["data"]
    assert entry["step_rewards"] == [None, None] and entry["malformed"] == 2 and entry["score"] is None
    assert moved(server, before)["vllm_prm:malformed_judgements_total"] == entry["malformed"]

    [row, empty] = score_file(server, tmp_path, monkeypatch, [unknown, {"question": "q", "steps": []}])
    counts = ("critiques", "malformed", "empty_critiques", "cut_off_critiques")
    assert row == {**unknown, **{name: entry[name] for name in ("step_rewards", *counts)}}
    assert (empty["step_rewards"], empty["critiques"]) == ([], 0)
    scorer = StepScorer.from_url(server, api_key_env="PRM_KEY")
    assert scorer.score([(QUESTION, UNREADABLE)]) == [entry["step_rewards"]]
    assert (scorer.usage.critiques, scorer.usage.malformed) == (1, entry["malformed"])
    scorer.shutdown()


def test_leaving_ends_the_critiques(servers):
    """200 solutions are 1200 generations, one step is two."""
    data = [{"question": f"Question {n}?", "steps": ["a", "b", "c"]} for n in range(200)]
    leaves_the_engine_free(servers["generative"], data, requests=2, tokens=2000)


# -- the end ---------------------------------------------------------------


def test_a_server_ends_with_its_second_engine_and_leaves_none(servers):
    """As vLLM's server ends when its own engine dies."""
    server = process_of(servers["implicit"])
    engines = engine_cores(server.pid, 2)
    engines[-1].kill()
    response = post(servers["implicit"], {"question": "Reference gone?", "steps": ["a"]})
    assert response.status_code == 500 and response.json()["error"]["code"] == 500
    assert server.wait(LIMIT_S) is not None
    assert until(lambda: not any(process.is_running() and process.status() != "zombie" for process in engines))
