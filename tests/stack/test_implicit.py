"""Implicit PRMs on real vLLM: two engines against a plain transformers forward of both models."""

import asyncio

import pytest
import torch
from tiny_pair import Published, save_pair

from vllm_prm.errors import ContextLengthError
from vllm_prm.families import load_family
from vllm_prm.scorer import StepScorer

pytestmark = pytest.mark.stack

ENGINE_ARGS = {
    "dtype": "float32",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 32 << 20,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 256,  # longer solutions are prefilled in pieces
}
QUESTION = "How many pens has Ann?"
STEPS = [f"Step {i}: she buys {i} and has {i * 7}{'.' * (i % 2)}" for i in range(1, 9)]


def worst(scores: list[float], expected: torch.Tensor) -> float:
    return (torch.tensor(scores, dtype=torch.float64) - expected).abs().max().item()


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    return save_pair(tmp_path_factory.mktemp("qwen2"), "qwen2", beta=0.05, cumulative=True)


@pytest.fixture(scope="module")
def published(qwen2):
    return Published(qwen2)


@pytest.fixture(scope="module")
def scorer(qwen2):
    made = StepScorer.from_pretrained(str(qwen2), **ENGINE_ARGS)
    yield made
    made.shutdown()


def test_whole_solutions_match_transformers(scorer, published):
    items = [(QUESTION, STEPS[:count]) for count in (1, 2, 8)] + [("And Bob?", ["Step 1: none"])]
    figures = [worst(got, published(*item, 0.05)) for got, item in zip(scorer.score(items), items, strict=True)]
    print("implicit qwen2 parity", figures)
    assert max(figures) < 1e-4
    assert published(QUESTION, STEPS, 0.05).abs().max() > 0.1, "scores near 0 would prove nothing"


def test_empty_steps_and_two_hundred(scorer, published):
    chains = [[""], ["a", "", "b"], ["a"] * 200]
    written = [[f"Step {number}: {step}" for number, step in enumerate(chain, start=1)] for chain in chains]
    assert scorer.score([(QUESTION, [])]) == [[]]
    got = scorer.score([(QUESTION, chain) for chain in chains])
    figures = [worst(scores, published(QUESTION, steps, 0.05)) for scores, steps in zip(got, written, strict=True)]
    print("implicit empty steps, 200 steps", figures)
    assert [len(scores) for scores in got] == [1, 3, 200]
    assert max(figures) < 1e-4


def test_growing_chain_matches_and_reads_the_cache(scorer, published):
    scorer.reset_cache()
    before = scorer.usage.computed_tokens
    figures = [
        worst(scorer.score([(QUESTION, STEPS[:count])])[0], published(QUESTION, STEPS[:count], 0.05))
        for count in range(1, len(STEPS) + 1)
    ]
    tokens = len(scorer.family.render(QUESTION, STEPS).token_ids)
    share = (scorer.usage.computed_tokens - before) / (2 * tokens)
    print("implicit growing", max(figures), "tokens", tokens, "computed share", share)
    assert max(figures) < 1e-4
    assert share < 2.0  # scratch each time would be 4.5


def test_branches_and_forgotten_sums_match(scorer, published):
    scorer.score([(QUESTION, STEPS)])
    branches = [[*STEPS[:n], f"Step {n + 1}: she b{ending}"] for n in range(6) for ending in ("uys", "egs")]
    for got, branch in zip(scorer.score([(QUESTION, branch) for branch in branches]), branches, strict=True):
        assert worst(got, published(QUESTION, branch, 0.05)) < 1e-4
    scorer.score_cache.clear()
    assert worst(scorer.score([(QUESTION, STEPS)])[0], published(QUESTION, STEPS, 0.05)) < 1e-4


def test_more_tokens_than_one_batch(scorer, published):
    steps = [f"Step {i}: {'abc ' * 40}" for i in range(1, 6)]
    [scores] = scorer.score([(QUESTION, steps)])
    assert worst(scores, published(QUESTION, steps, 0.05)) < 1e-4


def test_the_head_in_many_pieces(scorer, published, monkeypatch):
    """As for a vocabulary and a solution too large to take at once; the engines run in this process."""
    monkeypatch.setattr("vllm_prm.models.step_log_probs.VOCABULARY_AT_ONCE", 100)
    monkeypatch.setattr("vllm_prm.models.step_log_probs.POSITIONS_AT_ONCE", 7)
    scorer.reset_cache()
    assert worst(scorer.score([(QUESTION, STEPS)])[0], published(QUESTION, STEPS, 0.05)) < 1e-4


def test_context_length(scorer, published):
    steps = [f"Step {i}: {'abc ' * 40}" for i in range(1, 41)]
    with pytest.raises(ContextLengthError, match="max_model_len"):
        scorer.score([(QUESTION, steps)])
    [scores] = scorer.score([(QUESTION, steps)], truncate=True)
    fitting = sum(score is not None for score in scores)
    assert 0 < fitting < 40 and scores[fitting:] == [None] * (40 - fitting)
    # Sums over 4,000 tokens of random models reach 250, where float32 itself is no more exact than that.
    expected = published(QUESTION, steps, 0.05)[:fitting]
    torch.testing.assert_close(torch.tensor(scores[:fitting]), expected, rtol=1e-6, atol=1e-4)


def test_asynchronous_llama_with_exact_boundaries(tmp_path, monkeypatch):
    """The other architecture, the other boundaries, per-step scores and the other engine."""
    path = save_pair(tmp_path, "llama", boundaries="exact", beta=0.5)
    made = load_family(str(path))
    models = Published(path).models
    chains = [STEPS[:count] for count in range(1, 7)] + [[*STEPS[:3], "she stops"]]

    @torch.no_grad()
    def expected(steps: list[str]) -> torch.Tensor:
        rendered = made.render(QUESTION, steps)
        ids = torch.tensor([rendered.token_ids])
        policy, reference = (m(ids).logits[0, :-1].log_softmax(-1) for m in models)
        ratios = (policy - reference).gather(1, ids[0, 1:].unsqueeze(1)).squeeze(1)
        edges = [rendered.first, *rendered.step_positions]
        return 0.5 * torch.stack([ratios[a:b].sum() for a, b in zip(edges, edges[1:], strict=False)])

    async def run():
        scorer = StepScorer.from_pretrained(
            str(path), engine="async", distributed_executor_backend="uni", **ENGINE_ARGS
        )
        try:
            scores = await asyncio.gather(*[scorer.score_async(QUESTION, chain) for chain in chains])
            figures = [worst(got, expected(chain)) for got, chain in zip(scores, chains, strict=True)]
            print("implicit llama parity", max(figures))
            assert max(figures) < 1e-4
            await scorer.reset_cache_async()
            assert worst(await scorer.score_async(QUESTION, chains[0]), expected(chains[0])) < 1e-4
        finally:
            scorer.shutdown()

    asyncio.run(run())
