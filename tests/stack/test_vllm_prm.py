"""vllm_prm on real vLLM engines: parity with a plain forward, incremental scoring, AsyncLLM."""

import asyncio
import random
from pathlib import Path

import pytest
from forest import Forest
from tiny_prm import Reference, save_tiny_prm, worst

from vllm_prm.errors import ContextLengthError
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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_tiny_prm(tmp_path_factory.mktemp("prm"))


@pytest.fixture(scope="module")
def reference(checkpoint) -> Reference:
    return Reference(checkpoint)


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
    fitting = (511 - len(QUESTION)) // 62
    assert scores[fitting:] == [None] * (12 - fitting)
    assert worst(scores[:fitting], reference(QUESTION, steps[:fitting])) < 1e-4


def test_the_longest_solutions_prefilled_in_pieces(offline, reference):
    """Two of 511 tokens share engine steps of 512. With one token more, vLLM would never finish the second."""
    items = [(letter * (511 - 62), ["x" * 60]) for letter in "qr"]
    for got, item in zip(offline.score(items), items, strict=True):
        assert worst(got, reference(*item)) < 1e-4
    with pytest.raises(ContextLengthError, match="512 tokens in 1 steps, the PRM takes 511"):
        offline.score([("q" * (512 - 62), ["x" * 60])])


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


def test_async_engine_scores_concurrent_branches(checkpoint, reference):
    async def storm(scorer):
        """Growing and branching solutions at random moments, some of them called off, with few scores remembered."""
        scorer.score_cache.capacity = 30
        rng = random.Random(1)
        forest = Forest(rng, context=192)

        async def later(chain):
            await asyncio.sleep(rng.random())
            return chain, await scorer.score_async(*chain)

        tasks = [asyncio.create_task(later(forest.draw())) for _ in range(300)]
        for task in rng.sample(tasks, 60):
            asyncio.get_running_loop().call_later(rng.random(), task.cancel)
        done = [entry for entry in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(entry, tuple)]
        figures = [worst(got, reference(*chain)) for chain, got in done]
        print("async storm", len(done), "of 300,", max(figures))
        assert len(done) >= 240 and max(figures) < 1e-4

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
            await storm(scorer)
        finally:
            scorer.shutdown()

    asyncio.run(run())
