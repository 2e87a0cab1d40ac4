"""vllm_prm on real vLLM: parity with a plain forward, incremental scoring, AsyncLLM, and the HTTP server."""

import asyncio
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

# One thread and no core pinning: several small engines share the machine. vLLM reads these when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")

import httpx
import pytest
import torch
from tiny_prm import save_tiny_prm
from transformers import AutoModelForCausalLM

from vllm_prm.errors import AuthenticationError, ContextLengthError
from vllm_prm.families import load_family
from vllm_prm.scorer import StepScorer

pytestmark = pytest.mark.stack

ENGINE_ARGS = {
    "enforce_eager": True,
    "kv_cache_memory_bytes": 32 << 20,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 512,
}
QUESTION = "What is 2+3*4?"
STEPS = [f"Step {i}: we compute {i}*7 = {i * 7}." for i in range(10)]
ROOT = Path(__file__).parents[2]


class Reference:
    """Step scores by a plain transformers forward in float32, the tokens written out here a second time."""

    def __init__(self, path: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        self.tokenizer = load_family(str(path)).tokenizer

    @torch.no_grad()
    def __call__(self, question: str, steps: list[str]) -> list[float]:
        ids = self.tokenizer.encode(question, add_special_tokens=False)
        positions = []
        for step in steps:
            ids += self.tokenizer.encode(step + "\n", add_special_tokens=False)
            positions.append(len(ids))
            ids.append(self.tokenizer.convert_tokens_to_ids("<s>"))
        logits = self.model(torch.tensor([ids])).logits[0, positions]
        plus, minus = self.tokenizer.convert_tokens_to_ids(["+", "-"])
        return logits[:, [plus, minus]].softmax(-1)[:, 0].tolist()


def worst(scores: list[float], expected: list[float]) -> float:
    assert len(scores) == len(expected)
    return max(abs(a - b) for a, b in zip(scores, expected, strict=True))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_tiny_prm(tmp_path_factory.mktemp("prm"))


@pytest.fixture(scope="module")
def reference(checkpoint) -> Reference:
    return Reference(checkpoint)


@pytest.fixture(scope="module")
def plugin_path(tmp_path_factory) -> str:
    """A folder for PYTHONPATH that offers the entry points, so that a checkout works before it is installed."""
    site = tmp_path_factory.mktemp("site")
    entry_points = importlib.metadata.entry_points(group="vllm.general_plugins")
    if not any(plugin.value.startswith("vllm_prm:") for plugin in entry_points):
        info = site / "vllm_prm_checkout-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-prm-checkout\nVersion: 0\n")
        (info / "entry_points.txt").write_text(
            "[vllm.general_plugins]\nvllm_prm = vllm_prm:register\n"
            "[vllm.endpoint_plugins]\nvllm_prm_step_rewards = vllm_prm.endpoint:StepRewardsPlugin\n"
        )
    return os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])


@pytest.fixture(scope="module")
def offline(checkpoint):
    scorer = StepScorer.from_pretrained(str(checkpoint), dtype="float32", **ENGINE_ARGS)
    yield scorer
    scorer.shutdown()


def test_offline_matches_transformers(offline, reference):
    items = [(QUESTION, STEPS[:n]) for n in (1, 3, 10)] + [("Another question", ["one step"])]
    scores = offline.score(items)
    figures = [worst(got, reference(*item)) for got, item in zip(scores, items, strict=True)]
    print("offline parity", figures)
    assert max(figures) < 1e-4
    assert max(scores[2]) - min(scores[2]) > 0.1, "a checkpoint that scores everything alike would prove nothing"


def test_no_steps_reach_no_engine(offline):
    before = offline.usage.as_dict()
    assert offline.score([(QUESTION, [])]) == [[]]
    assert offline.usage.computed_tokens == before["computed_tokens"]


def test_200_steps_and_chunked_prefill(offline, reference):
    steps = ["a"] * 150  # 2 + 3 * 150 = 452 tokens
    long_items = [("qq", steps), ("rr", steps)]  # together beyond max_num_batched_tokens: prefilled in pieces
    for got, item in zip(offline.score(long_items), long_items, strict=True):
        assert worst(got, reference(*item)) < 1e-4


def test_growing_chain_equals_scratch_and_reads_the_cache(offline, reference):
    offline.reset_cache()
    before = offline.usage.as_dict()
    for n in range(1, len(STEPS) + 1):
        [scores] = offline.score([(QUESTION, STEPS[:n])])
        assert worst(scores, reference(QUESTION, STEPS[:n])) < 1e-4
    solution_tokens = len(load_family(str(reference.model.config._name_or_path)).render(QUESTION, STEPS).token_ids)
    computed = offline.usage.computed_tokens - before["computed_tokens"]
    print("growing chain: computed", computed, "of solution", solution_tokens)
    assert computed < 2.0 * solution_tokens
    assert offline.usage.score_cache_hits - before["score_cache_hits"] == sum(range(len(STEPS)))


def test_branching_chains_equal_scratch(offline, reference):
    offline.reset_cache()
    offline.score([(QUESTION, STEPS)])
    items = [(QUESTION, [*STEPS[:n], f"but {k} says otherwise", "so"]) for n in (0, 4, 9) for k in range(2)]
    for got, item in zip(offline.score(items), items, strict=True):
        assert worst(got, reference(*item)) < 1e-4


def test_forgotten_scores_in_a_cached_prefix_are_computed_again(offline, reference):
    """Keys and values cached, scores gone: the engine skips those positions, and the scorer must ask again."""
    offline.reset_cache()
    offline.score([(QUESTION, STEPS)])
    offline.score_cache.clear()
    [scores] = offline.score([(QUESTION, STEPS)])
    assert worst(scores, reference(QUESTION, STEPS)) < 1e-4


def test_context_length(offline, reference):
    # 4 + 6 * 11 = 70 tokens per step; 7 steps make 490 + 14 > 512 - 8 at the eighth.
    steps = ["x" * 60] * 12
    with pytest.raises(ContextLengthError, match="max_model_len"):
        offline.score([(QUESTION, steps)])
    [scores] = offline.score([(QUESTION, steps)], truncate=True)
    fitting = (512 - len(QUESTION)) // 62
    assert scores[fitting:] == [None] * (12 - fitting)
    assert worst(scores[:fitting], reference(QUESTION, steps[:fitting])) < 1e-4


def test_exactly_full_context(offline, reference):
    question = "q" * (512 - 62)
    [scores] = offline.score([(question, ["x" * 60])])
    assert worst(scores, reference(question, ["x" * 60])) < 1e-4


def test_a_step_that_contains_the_tag(offline, reference):
    steps = ["one <s> two", "<s>", ""]
    [scores] = offline.score([(QUESTION, steps)])
    assert worst(scores, reference(QUESTION, steps)) < 1e-4


def test_async_call_on_offline_engine_is_refused(offline):
    with pytest.raises(ValueError, match="engine='async'"):
        asyncio.run(offline.score_async(QUESTION, STEPS))


@pytest.mark.parametrize(("tied", "dtype", "tolerance"), [(True, "float32", 1e-4), (False, "bfloat16", 0.1)])
def test_tied_head_and_bfloat16(tmp_path, offline, tied, dtype, tolerance):
    path = save_tiny_prm(tmp_path, tied=tied, seed=1)
    scorer = StepScorer.from_pretrained(str(path), dtype=dtype, **ENGINE_ARGS)
    try:
        [scores] = scorer.score([(QUESTION, STEPS)])
        figure = worst(scores, Reference(path)(QUESTION, STEPS))
        print(f"tied={tied} {dtype}: {figure}")
        assert figure < tolerance
    finally:
        scorer.engine.llm.llm_engine.engine_core.shutdown()


def test_async_engine_scores_concurrent_branches(checkpoint, reference, plugin_path, monkeypatch):
    for folder in plugin_path.split(os.pathsep)[:2]:
        monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", plugin_path)

    async def run():
        scorer = StepScorer.from_pretrained(
            str(checkpoint), engine="async", dtype="float32", distributed_executor_backend="uni", **ENGINE_ARGS
        )
        try:
            chains = [[*STEPS[:n], f"branch {k}"] for n in range(8) for k in range(3)]
            scores = await asyncio.gather(*[scorer.score_async(QUESTION, chain) for chain in chains])
            figures = [worst(got, reference(QUESTION, chain)) for got, chain in zip(scores, chains, strict=True)]
            print("async parity", max(figures), scorer.usage)
            assert max(figures) < 1e-4
            assert await scorer.score_async(QUESTION, []) == []
            await scorer.reset_cache_async()
            assert len(scorer.score_cache) == 0
            again = await scorer.score_async(QUESTION, chains[-1])
            assert worst(again, scores[-1]) < 1e-5
            assert scorer.usage.requests == len(chains) + 2
        finally:
            scorer.shutdown()

    asyncio.run(run())


@pytest.fixture(scope="module")
def server(checkpoint, plugin_path, tmp_path_factory):
    """`vllm-prm serve` in a process of its own, with an API key."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = "--dtype float32 --enforce-eager --kv-cache-memory-bytes 33554432 --max-num-seqs 16 --api-key secret"
    command = [sys.executable, "-m", "vllm_prm.serve", "serve", str(checkpoint), "--host", "127.0.0.1"]
    log = tmp_path_factory.mktemp("log") / "server.log"
    environment = {**os.environ, "PYTHONPATH": plugin_path}
    with log.open("w") as sink:
        process = subprocess.Popen(
            [*command, "--port", str(port), *flags.split()], env=environment, stdout=sink, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 240
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the server did not start:\n{log.read_text()[-4000:]}")
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


HEADERS = {"Authorization": "Bearer secret"}


def test_server_scores_over_http(server, reference):
    body = {"question": QUESTION, "steps": STEPS, "aggregate": "min"}
    response = httpx.post(f"{server}/v1/step_rewards", json=body, headers=HEADERS, timeout=120)
    assert response.status_code == 200, response.text
    answer = response.json()
    [entry] = answer["data"]
    assert worst(entry["step_rewards"], reference(QUESTION, STEPS)) < 1e-4
    assert entry["score"] == min(entry["step_rewards"])
    usage = answer["usage"]
    assert usage["prompt_tokens"] == usage["cached_tokens"] + usage["computed_tokens"]

    again = httpx.post(f"{server}/v1/step_rewards", json=body, headers=HEADERS, timeout=120).json()
    assert again["usage"]["computed_tokens"] == 0
    assert again["data"] == answer["data"]


def test_server_cuts_a_response(server, reference):
    body = {"data": [{"question": QUESTION, "response": "one\n\ntwo\n", "splitter": "\n"}]}
    answer = httpx.post(f"{server}/v1/step_rewards", json=body, headers=HEADERS, timeout=120).json()
    assert worst(answer["data"][0]["step_rewards"], reference(QUESTION, ["one", "two"])) < 1e-4


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"question": QUESTION},
        {"question": QUESTION, "step": STEPS},
        {"question": QUESTION, "steps": "not a list"},
        {"question": QUESTION, "steps": STEPS, "aggregate": "median"},
        {"data": []},
    ],
)
def test_server_refuses_malformed_requests(server, body):
    response = httpx.post(f"{server}/v1/step_rewards", json=body, headers=HEADERS, timeout=60)
    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_server_refuses_wrong_keys_and_models(server):
    body = {"question": QUESTION, "steps": STEPS}
    assert httpx.post(f"{server}/v1/step_rewards", json=body).status_code == 401
    wrong = {"Authorization": "Bearer wrong"}
    assert httpx.post(f"{server}/v1/step_rewards", json=body, headers=wrong).status_code == 401
    other = httpx.post(f"{server}/v1/step_rewards", json={**body, "model": "other"}, headers=HEADERS)
    assert other.status_code == 404


def test_server_documents_the_route(server):
    assert "/v1/step_rewards" in httpx.get(f"{server}/openapi.json").json()["paths"]


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
    scorer.shutdown()

    monkeypatch.setenv("PRM_KEY", "wrong")
    with pytest.raises(AuthenticationError):
        StepScorer.from_url(server, api_key_env="PRM_KEY").score(items)


def test_score_file_resumes(server, reference, tmp_path, monkeypatch):
    from vllm_prm.serve import main

    monkeypatch.setenv("PRM_KEY", "secret")
    rows = [{"id": n, "question": QUESTION, "steps": STEPS[:n]} for n in (1, 2, 3)]
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # As after a kill: one line written out, the second cut short.
    kept = {**rows[0], "step_rewards": [0.125], "score": 0.125}
    (tmp_path / "out.jsonl.partial").write_text(json.dumps(kept) + '\n{"id": 2, "ques')
    files = ["--input", str(source), "--output", str(output)]
    main(["score", "unused", *files, "--url", server, "--api-key-env", "PRM_KEY", "--aggregate", "min"])
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["id"] for line in lines] == [1, 2, 3]
    assert lines[0] == kept
    assert worst(lines[2]["step_rewards"], reference(QUESTION, STEPS[:3])) < 1e-4
    assert not (tmp_path / "out.jsonl.partial").exists()
