"""Incremental scoring against scoring from scratch, over random schedules on a real vLLM engine.

A schedule asks for up to eight solutions at once, which grow, branch, repeat or start anew from those of the schedules
before. The engine that serves all of them is far too small: a few blocks of keys and values and 24 remembered scores,
so both are evicted all the time, requests are preempted, and prompts are prefilled in chunks of at most 24 tokens. Now
and then the score cache or the prefix cache alone is dropped, or other weights are loaded. Every score must be the one
that a plain forward pass of transformers over the whole solution gives, in float32.

    python tests/stack/test_scoring_schedules.py --schedules 20000 --seed 1      # the longer form
"""

import argparse
import os
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path

# vLLM reads these when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")

import pytest
import torch
from forest import Chain, Forest
from tiny_prm import Reference, save_tiny_prm

from vllm_prm.scorer import StepScorer

CONTEXT = 192
BLOCKS = 10  # of 32 tokens; one of them is vLLM's null block
SCORES = 24
ENGINE_ARGS = {
    "dtype": "float32",
    "enforce_eager": True,
    "num_gpu_blocks_override": BLOCKS,
    "kv_cache_memory_bytes": 32 << 20,
    "max_num_seqs": 6,
    "max_num_batched_tokens": 96,
    "enable_chunked_prefill": True,
    "long_prefill_token_threshold": 24,
}


class Events:
    """Counts what the small engine was meant to provoke."""

    def __init__(self, scorer: StepScorer) -> None:
        self.counts: dict[str, int] = defaultdict(int)
        scheduler = scorer.engine.llm.llm_engine.engine_core.engine_core.scheduler
        self._count(scheduler, "_preempt_request", "preempted requests", lambda result, *_: 1)
        pool = scheduler.kv_cache_manager.block_pool
        self._count(pool, "_maybe_evict_cached_block", "evicted blocks", lambda result, *_: int(result))
        self._count(
            scorer.engine,
            "pool",
            "requests asked again without the prefix cache",
            lambda _, requests: sum(not request.read_prefix_cache for request in requests),
        )
        self._count(scorer.engine, "pool", "requests", lambda _, requests: len(requests))

    def _count(self, owner, method: str, name: str, amount) -> None:
        original = getattr(owner, method)

        def counted(*args, **kwargs):
            result = original(*args, **kwargs)
            self.counts[name] += amount(result, *args)
            return result

        setattr(owner, method, counted)


def run_schedules(scorer: StepScorer, checkpoints: list[Path], schedules: int, seed: int, per_weights: int = 100):
    """Scores of `schedules` random schedules: for each checkpoint, solution -> its scores every time it was asked for.

    After `per_weights` schedules the next checkpoint's weights are loaded into the running engine.
    """
    rng = random.Random(seed)
    forest = Forest(rng, CONTEXT)
    answers: list[dict[Chain, list]] = [defaultdict(list) for _ in checkpoints]
    weights = 0
    for number in range(schedules):
        if number and number % per_weights == 0:
            weights = (weights + 1) % len(checkpoints)
            path = {"weights_path": str(checkpoints[weights])}
            scorer.engine.llm.collective_rpc("reload_weights", kwargs=path)
            scorer.reset_cache()
        event = rng.random()
        if event < 0.03:
            scorer.score_cache.clear()
        elif event < 0.06:
            scorer.engine.reset_prefix_cache()
        batch = [forest.draw() for _ in range(rng.choice([1, 1, 2, 4, 8]))]
        for chain, scores in zip(batch, scorer.score(batch), strict=True):
            answers[weights][chain].append(scores)
    return answers


@torch.no_grad()
def worst_difference(reference: Reference, answers: dict[Chain, list]) -> float:
    """The largest difference from plain forward passes over whole solutions, in padded batches."""
    plus, minus, tag = reference.tokenizer.convert_tokens_to_ids(["+", "-", "<s>"])
    chains = sorted(answers, key=lambda chain: len(chain[0]) + sum(map(len, chain[1])))
    worst = 0.0
    for start in range(0, len(chains), 32):
        batch = chains[start : start + 32]
        rows, positions = [], []
        for question, steps in batch:
            ids, ends = reference.tokenizer.encode(question, add_special_tokens=False), []
            for step in steps:
                ids = ids + reference.tokenizer.encode(step + "\n", add_special_tokens=False)
                ends.append(len(ids))
                ids.append(tag)
            rows.append(ids)
            positions.append(ends)
        longest = max(map(len, rows))
        # Padding stands behind: no token of a causal model sees it.
        logits = reference.model(torch.tensor([row + [0] * (longest - len(row)) for row in rows])).logits
        for index, (chain, ends) in enumerate(zip(batch, positions, strict=True)):
            expected = logits[index, ends][:, [plus, minus]].softmax(-1)[:, 0]
            got = torch.tensor(answers[chain])
            assert got.shape[1] == len(ends)
            worst = max(worst, (got - expected).abs().max().item())
    return worst


def compare(schedules: int, seed: int, folder: Path) -> dict:
    """Runs everything and returns the figures."""
    checkpoints = [
        save_tiny_prm(folder / name, seed=number, max_position_embeddings=CONTEXT) for number, name in enumerate("ab")
    ]
    scorer = StepScorer.from_pretrained(str(checkpoints[0]), score_cache_size=SCORES, **ENGINE_ARGS)
    try:
        events = Events(scorer)
        started = time.perf_counter()
        answers = run_schedules(scorer, checkpoints, schedules, seed)
        engine_s = time.perf_counter() - started
        references = [Reference(checkpoint) for checkpoint in checkpoints]
        differences = [worst_difference(*pair) for pair in zip(references, answers, strict=True)]
        shared = set(answers[0]) & set(answers[1])
        return {
            "schedules": schedules,
            "seed": seed,
            "solutions": sum(map(len, answers)),
            "scores": sum(len(scores) for kind in answers for asked in kind.values() for scores in asked),
            "max_abs_diff": max(differences),
            "weights_apart": max(
                (abs(a - b) for c in shared for a, b in zip(answers[0][c][0], answers[1][c][0], strict=True)), default=0
            ),
            "score_cache_hits": scorer.usage.score_cache_hits,
            "computed_share": scorer.usage.computed_tokens / scorer.usage.prompt_tokens,
            "engine_s": round(engine_s, 1),
            **events.counts,
        }
    finally:
        scorer.shutdown()


@pytest.mark.stack
def test_every_schedule_equals_scoring_from_scratch(tmp_path):
    figures = compare(2000, 0, tmp_path)
    print(figures)
    assert figures["max_abs_diff"] < 1e-4
    # What would make this test prove less than it says:
    assert figures["weights_apart"] > 0.05
    assert figures["preempted requests"] > 50
    assert figures["evicted blocks"] > 1000
    assert figures["requests asked again without the prefix cache"] > 100
    assert figures["score_cache_hits"] > 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(compare(args.schedules, args.seed, Path(folder)))


if __name__ == "__main__":
    main()
