"""A PRM of letters, and an engine whose scores are a function of the token prefix."""

import asyncio
from types import SimpleNamespace

from vllm_prm.engines import AsyncEngine, OfflineEngine, PoolAnswer
from vllm_prm.families import PRMFamily, Rendered


class Letters(PRMFamily):
    """One token per letter, tag 0 after each step; the raw row is the score."""

    reward_token_ids = (7,)
    tokenizer = SimpleNamespace(get_vocab=lambda: {"a": 1})

    @classmethod
    def from_checkpoint(cls, path, tokenizer=None, options=None):
        return cls()

    def render(self, question, steps):
        token_ids, positions = [ord(letter) for letter in question], []
        for step in steps:
            token_ids += [ord(letter) for letter in step]
            positions.append(len(token_ids))
            token_ids.append(0)
        return Rendered(token_ids, positions)

    def decode(self, raw):
        return [row[0] for row in raw]

    def hf_overrides(self):
        return {}


class FakeEngine(OfflineEngine):
    """Caches whole blocks of 4 tokens of everything it has seen, as vLLM's prefix cache does."""

    def __init__(self, max_model_len=64):
        self.max_model_len = max_model_len
        self.seen, self.requests = set(), []
        self.weights = 1.0

    def pool(self, requests):
        self.requests += requests
        return [self.answer(request) for request in requests]

    def answer(self, request):
        ids, cached = request.token_ids, 0
        if request.read_prefix_cache:
            while cached + 4 < len(ids) and tuple(ids[: cached + 4]) in self.seen:
                cached += 4
        self.seen |= {tuple(ids[:end]) for end in range(4, len(ids) + 1, 4)}
        rows = {p: (self.weights * sum(ids[: p + 1]),) for p in request.step_positions if p >= cached}
        return PoolAnswer(rows, cached)

    def reset_prefix_cache(self):
        self.seen.clear()


def expected(question, steps):
    totals, text = [], question
    for step in steps:
        text += step
        totals.append(float(sum(map(ord, text))))
    return totals


class FakeAsyncEngine(AsyncEngine):
    """Computes an answer once every caller has asked, and gives it only where `gate` is open, so that requests overlap
    and others may act in between."""

    def __init__(self):
        self.inner, self.max_model_len = FakeEngine(), 64
        self.gate, self.computed = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def pool_one(self, request):
        await asyncio.sleep(0)
        answer = self.inner.answer(request)
        self.computed.set()
        await self.gate.wait()
        return answer

    async def reset_prefix_cache(self):
        self.inner.reset_prefix_cache()
