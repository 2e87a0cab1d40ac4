"""Step scores on a GPU: vLLM's own kernels, compiled models, CUDA graphs; against a plain transformers forward on CPU.

float32 holds the formulas (GPU kernels may multiply in TF32, with a 10-bit mantissa), bfloat16 what users run. Each
engine has a process of its own, as vLLM starts it for users; it finds our models through the installed entry point.
"""

import asyncio

import pytest
import torch
from tiny_checkpoints import CASES, PlainForward
from tiny_pair import Published, save_pair
from tiny_prm import Reference, save_tiny_prm, worst

from vllm_prm.scorer import StepScorer

pytestmark = pytest.mark.gpu

# vLLM checks at its start that gpu_memory_utilization is free, whatever it will use.
MEMORY = {
    "gpu_memory_utilization": 0.3,
    "kv_cache_memory_bytes": 256 << 20,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 512,
}
QUESTION = "How many birds are there, if 3 + 4 come and 2 go?"
STEPS = ["First, 3 + 4 = 7.", "", "Then we take (7 - 2)\n\nwhich is 5.", "This is no <extra_0>, nor a ки.", "So: 5"]
ITEMS = [(QUESTION, STEPS), ("Another?", ["one step"]), (QUESTION, [""]), (QUESTION, ["a"] * 200)]


def errors(scorer, items, reference):
    """The largest error of whole solutions, and of the first one grown step by step from an empty cache."""
    whole = max(worst(got, reference(*item)) for got, item in zip(scorer.score(items), items, strict=True))
    scorer.reset_cache()
    question, steps = items[0]
    grown = max(
        worst(scorer.score([(question, steps[:count])])[0], reference(question, steps[:count]))
        for count in range(1, len(steps) + 1)
    )
    return whole, grown


@pytest.mark.parametrize("name", list(CASES))
def test_every_family_in_float32(name, tmp_path):
    torch.manual_seed(0)
    case = CASES[name]
    path = case.save(tmp_path)
    scorer = StepScorer.from_pretrained(
        str(path), case.named, family_options=case.options, dtype="float32", enforce_eager=True, **MEMORY
    )
    try:
        figures = errors(scorer, ITEMS, PlainForward(case, path, scorer.family))
    finally:
        scorer.shutdown()
    print(f"parity {name}: whole {figures[0]:.1e}, grown {figures[1]:.1e}")
    assert max(figures) < 5e-3


def test_compiled_with_cuda_graphs_in_bfloat16(tmp_path):
    path = save_tiny_prm(tmp_path, seed=1)
    scorer = StepScorer.from_pretrained(str(path), dtype="bfloat16", **MEMORY)
    steps = [f"Step {number}: we compute {number}*7 = {number * 7}." for number in range(10)]
    try:
        figures = errors(scorer, [("What is 2+3*4?", steps), ("qq", ["a"] * 150), ("rr", ["a"] * 150)], Reference(path))
    finally:
        scorer.shutdown()
    print(f"bfloat16: whole {figures[0]:.1e}, grown {figures[1]:.1e}")
    assert max(figures) < 0.1


def test_two_engines_share_a_gpu(tmp_path):
    """An implicit PRM's model and reference, each with its share of the memory, as vLLM counts it."""
    path = save_pair(tmp_path, "qwen2", beta=0.05, cumulative=True)
    scorer = StepScorer.from_pretrained(str(path), dtype="float32", enforce_eager=True)
    published = Published(path)
    steps = [f"Step {number}: she buys {number}" for number in range(1, 9)]
    try:
        [scores] = scorer.score([(QUESTION, steps)])
    finally:
        scorer.shutdown()
    error = (torch.tensor(scores, dtype=torch.float64) - published(QUESTION, steps, 0.05)).abs().max().item()
    print(f"implicit: {error:.1e}")
    assert error < 5e-3


def test_an_asynchronous_engine(tmp_path):
    """As PRM workers of PPO hold it."""
    path = save_tiny_prm(tmp_path, seed=2)
    reference = Reference(path)
    items = [(f"What is {number}?", [f"It is {number}.", "So we are done."]) for number in range(32)]

    async def score_all() -> list:
        scorer = StepScorer.from_pretrained(str(path), engine="async", dtype="float32", enforce_eager=True, **MEMORY)
        try:
            return await asyncio.gather(*(scorer.score_async(*item) for item in items))
        finally:
            scorer.shutdown()

    figure = max(worst(got, reference(*item)) for got, item in zip(asyncio.run(score_all()), items, strict=True))
    print(f"async: {figure:.1e}")
    assert figure < 5e-3
