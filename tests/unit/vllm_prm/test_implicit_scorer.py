"""Two models scored as one."""

import asyncio
import json

import pytest
from character_pair import FakeEngine, expected, family, make_scorer, save

from vllm_prm.engines import AsyncEngine
from vllm_prm.errors import ContextLengthError
from vllm_prm.implicit_scorer import AsyncPair, ImplicitScorer, _live_together
from vllm_prm.serve import serve_command


def test_too_long():
    steps = ["abcdefgh"] * 6
    scorer = make_scorer(boundaries="exact", max_model_len=80)
    with pytest.raises(ContextLengthError, match="max_model_len"):
        scorer.score([("q", steps)])
    [scores] = scorer.score([("q", steps)], truncate=True)
    fitting = sum(score is not None for score in scores)
    assert 0 < fitting < 6
    assert scores[:fitting] == pytest.approx(expected(scorer.family, "q", steps)[:fitting], abs=1e-12)
    assert scorer.score([("q" * 90, steps)], truncate=True) == [[None] * 6]


def test_no_step_reaches_no_engine():
    scorer = make_scorer()
    assert scorer.score([("q", [])]) == [[]]
    assert scorer.engine.engines[0].requests == []


def test_reset_cache_follows_new_weights():
    scorer = make_scorer()
    [before] = scorer.score([("q", ["a"])])
    scorer.engine.engines[0].weights = "other"
    scorer.reset_cache()
    assert scorer.score([("q", ["a"])]) != [before]


class FakeAsyncEngine(AsyncEngine):
    def __init__(self, weights):
        self.inner, self.max_model_len = FakeEngine(weights), 4096

    async def pool_one(self, request):
        await asyncio.sleep(0)
        return self.inner.answer(request)

    async def reset_prefix_cache(self):
        self.inner.reset_prefix_cache()

    def shutdown(self):
        pass


def test_concurrent_branches():
    scorer = ImplicitScorer(AsyncPair(FakeAsyncEngine("policy"), FakeAsyncEngine("reference")), family())
    chains = [["ab.", "cd", "so e."][:count] + ["f" * count] for count in range(4)] * 3

    async def run():
        scores = await asyncio.gather(*[scorer.score_async("q?", chain) for chain in chains])
        await scorer.reset_cache_async()
        return scores

    for got, chain in zip(asyncio.run(run()), chains, strict=True):
        assert got == pytest.approx(expected(scorer.family, "q?", chain), abs=1e-12)
    assert len(scorer.score_cache) == 0


def test_leaving_calls_both_models_off():
    called_off = []

    class Endless(FakeAsyncEngine):
        async def pool_one(self, request):
            try:
                await asyncio.Event().wait()
            finally:
                called_off.append(self.inner.weights)

    scorer = ImplicitScorer(AsyncPair(Endless("policy"), Endless("reference")), family())

    async def run():
        task = asyncio.create_task(scorer.score_async("q?", ["a"]))
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert sorted(called_off) == ["policy", "reference"]


def test_a_server_runs_both_models_in_one_process(tmp_path, monkeypatch):
    from vllm.platforms import current_platform

    monkeypatch.setattr(type(current_platform), "is_cpu", lambda self: False)
    options = {"reference_engine_args": {"max_num_seqs": 8}}
    path = save(tmp_path / "prm", family="implicit", reference=save(tmp_path / "reference"))
    command = serve_command(path, "implicit", ["--api-server-count", "1"], options)
    assert command[command.index("--gpu-memory-utilization") + 1] == "0.45"
    assert command[command.index("--runner") + 1] == "pooling" and "--io-processor-plugin" not in command
    shown = json.loads(command[command.index("--hf-overrides") + 1])
    assert shown["architectures"] == ["LlamaForStepLogProbs"]
    assert shown["prm"]["options"]["reference_engine_args"] == {"max_num_seqs": 8}
    given = ["--gpu-memory-utilization", "0.3"]
    command = serve_command(path, "implicit", given)
    assert command[-2:] == given and command.count(given[0]) == 1
    for memory in (["--gpu-memory-utilization=0.5"], ["--gpu_memory_utilization", "0.9"]):
        with pytest.raises(ValueError, match="together they must stay below 1, and 0.45 each is the default"):
            serve_command(path, "implicit", memory)
    with pytest.raises(ValueError, match="would take 0.45 of a device, its reference 0.6 of the same one"):
        serve_command(path, "implicit", [], {"reference_engine_args": {"gpu_memory_utilization": 0.6}})
    unequal = {"reference_engine_args": {"gpu_memory_utilization": 0.3}}
    assert "0.6" in serve_command(path, "implicit", ["--gpu-memory-utilization", "0.6"], unequal)
    with pytest.raises(ValueError, match="invalid float value: 'half'"):
        serve_command(path, "implicit", ["--gpu-memory-utilization", "half"])
    for flags in (["--api-server-count", "2"], ["-dp=2"], ["--data_parallel_size", "4"]):
        with pytest.raises(ValueError, match="must be 1 for a PRM of two models, got [24]"):
            serve_command(path, "implicit", flags)
    with pytest.raises(ValueError, match="no engine argument max_seqs"):
        serve_command(path, "implicit", [], {"reference_engine_args": {"max_seqs": 8}})
    with pytest.raises(ValueError, match="needs the engine_args"):
        ImplicitScorer.from_engine(object(), family())


def test_two_engines_live_and_die_together():
    class Client:
        def __init__(self, healthy=True):
            self.healthy, self.stopped = healthy, []

        def shutdown(self, timeout=None):
            self.stopped.append(timeout)

        async def check_health(self):
            if not self.healthy:
                raise RuntimeError("dead")

    client, other = Client(), Client()
    _live_together(client, other)
    asyncio.run(client.check_health())
    other.healthy = False
    with pytest.raises(RuntimeError, match="dead"):
        asyncio.run(client.check_health())
    client.shutdown(timeout=3)
    assert client.stopped == other.stopped == [3]
