"""The score cache and the plan, against an engine that is a function of the token prefix."""

import asyncio
import math
import types

import pytest

from vllm_prm.engines import AsyncEngine, OfflineEngine, PoolAnswer
from vllm_prm.errors import ContextLengthError, StepScoringError
from vllm_prm.families import PRMFamily, Rendered
from vllm_prm.protocol import StepRewardItem
from vllm_prm.score_cache import ScoreCache, prefix_keys
from vllm_prm.scorer import StepScorer
from vllm_prm.weight_updates import WATCHED_CALLS


class Letters(PRMFamily):
    """One token per letter, tag 0 after each step; the raw row is the score."""

    reward_token_ids = (7,)

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


@pytest.fixture
def scorer():
    return StepScorer(FakeEngine(), Letters())


def test_prefix_keys_depend_on_the_whole_prefix_and_nothing_after():
    first = list(prefix_keys([1, 2, 3, 4], [1, 3]))
    assert first[0] == next(prefix_keys([1, 2, 9], [1]))
    assert first[1] != list(prefix_keys([9, 2, 3, 4], [1, 3]))[1]
    # What lies between the positions counts, not where the positions are.
    assert first[1] == next(prefix_keys([1, 2, 3, 4], [3]))


def test_cache_is_bounded_and_forgets_the_least_recently_used():
    cache = ScoreCache(2)
    cache.put(b"a", (1.0,), 0)
    cache.put(b"b", (2.0,), 0)
    assert cache.get(b"a") == (1.0,)
    cache.put(b"c", (3.0,), 0)
    assert cache.get(b"b") is None and cache.get(b"a") == (1.0,) and len(cache) == 2


def test_cache_refuses_rows_of_old_weights():
    cache = ScoreCache(2)
    cache.clear()
    cache.put(b"a", (1.0,), 0)
    assert cache.get(b"a") is None


def test_a_growing_solution_asks_for_its_new_step_only(scorer):
    steps = ["abc", "de", "fghij"]
    for count in range(1, 4):
        assert scorer.score([("q?", steps[:count])]) == [expected("q?", steps[:count])]
    assert [len(request.step_positions) for request in scorer.engine.requests] == [1, 1, 1]
    assert scorer.usage.score_cache_hits == 0 + 1 + 2
    assert scorer.usage.steps == 6


def test_a_known_solution_reaches_no_engine(scorer):
    scorer.score([("q", ["ab", "c"])])
    scorer.score([("q", ["ab", "c"]), ("q", ["ab"])])
    assert len(scorer.engine.requests) == 1
    assert scorer.usage.prompt_tokens == scorer.usage.computed_tokens + scorer.usage.cached_tokens == 6 + 6 + 4


def test_a_score_hidden_by_the_prefix_cache_is_asked_for_again(scorer):
    scorer.score([("question", ["ab", "c", "defg"])])
    scorer.score_cache.clear()
    scorer.engine.requests.clear()
    assert scorer.score([("question", ["ab", "c", "defg"])]) == [expected("question", ["ab", "c", "defg"])]
    assert [request.read_prefix_cache for request in scorer.engine.requests] == [True, False]


def test_no_cache_at_all_still_gives_every_score():
    scorer = StepScorer(FakeEngine(), Letters(), score_cache_size=0)
    for _ in range(2):
        assert scorer.score([("question", ["ab", "cdef"])]) == [expected("question", ["ab", "cdef"])]


def test_an_engine_that_leaves_a_score_out_is_an_error(scorer):
    scorer.engine.answer = lambda request: PoolAnswer({}, 0)
    with pytest.raises(StepScoringError, match="step positions"):
        scorer.score([("q", ["a"])])


def test_reset_cache_follows_new_weights(scorer):
    scorer.score([("q", ["a"])])
    scorer.engine.weights = 2.0
    scorer.reset_cache()
    assert scorer.score([("q", ["a"])]) == [[2 * expected("q", ["a"])[0]]]


def test_non_finite_scores_are_refused(scorer):
    scorer.engine.weights = math.nan
    with pytest.raises(StepScoringError, match="non-finite"):
        scorer.score([("q", ["a"])])


def test_no_steps(scorer):
    assert scorer.score([("q", []), ("q", ["a"])]) == [[], expected("q", ["a"])]
    assert len(scorer.engine.requests) == 1
    assert scorer.score([]) == []


def test_too_long():
    scorer = StepScorer(FakeEngine(max_model_len=7), Letters())
    assert scorer.score([("q", ["abcd"])]) == [expected("q", ["abcd"])]
    with pytest.raises(ContextLengthError, match="7 tokens in 1 steps.*takes 6 .max_model_len - 1"):
        scorer.score([("q", ["abcde"])])
    # q, ab, tag = 4 tokens; the second tag would be token 7.
    [scores] = scorer.score([("q", ["ab", "cd", "e"])], truncate=True)
    assert scores == [*expected("q", ["ab"]), None, None]
    assert scorer.score([("q" * 9, ["a"])], truncate=True) == [[None]]


def test_items_may_be_requests(scorer):
    item = StepRewardItem(question="q", response="a\n\nb\n")
    assert scorer.score([item]) == [expected("q", ["a", "b"])]


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


def test_concurrent_branches():
    scorer = StepScorer(FakeAsyncEngine(), Letters())
    chains = [["abcd", "efgh", "ijkl"][:count] + ["z" * count] for count in range(4)] * 3

    async def run():
        return await asyncio.gather(*[scorer.score_async("question", chain) for chain in chains])

    assert asyncio.run(run()) == [expected("question", chain) for chain in chains]


async def in_flight(scorer, steps):
    """A call whose answer is computed and not yet given."""
    scorer.engine.gate.clear()
    scorer.engine.computed.clear()
    task = asyncio.create_task(scorer.score_async("q", steps))
    await scorer.engine.computed.wait()
    return task


def test_rows_in_flight_during_a_reset_are_not_remembered():
    scorer = StepScorer(FakeAsyncEngine(), Letters())

    async def run():
        task = await in_flight(scorer, ["a"])
        scorer.engine.inner.weights = 2.0
        await scorer.reset_cache_async()
        scorer.engine.gate.set()
        await task
        return await scorer.score_async("q", ["a"])

    assert asyncio.run(run()) == [2 * score for score in expected("q", ["a"])]


def test_no_answer_holds_scores_of_two_different_weights():
    """The first score comes from the cache, the second from the engine; between the two the weights change."""
    scorer = StepScorer(FakeAsyncEngine(), Letters())

    async def run():
        await scorer.score_async("q", ["a"])
        task = await in_flight(scorer, ["a", "b"])
        scorer.engine.inner.weights = 2.0
        await scorer.reset_cache_async()
        scorer.engine.gate.set()
        return await task

    assert asyncio.run(run()) == [2 * score for score in expected("q", ["a", "b"])]


def test_weights_that_never_stand_still_are_an_error():
    class Restless(FakeAsyncEngine):
        async def pool_one(self, request):
            answer = await super().pool_one(request)
            scorer.score_cache.clear()
            return answer

    scorer = StepScorer(Restless(), Letters())
    with pytest.raises(StepScoringError, match="weights changed"):
        asyncio.run(scorer.score_async("q", ["a"]))


class SharedClient:
    """What vLLM's server hands to its plugins, as far as weight updates go; `seen` records the cache at each call."""

    def __init__(self):
        self.seen = []

    async def _call(self, *args, **kwargs):
        self.seen.append((len(self.scorer.score_cache), args, kwargs))
        self.scorer.score_cache.put(b"computed meanwhile", (1.0,), self.scorer.score_cache.generation)
        return "answer"


for _name in WATCHED_CALLS:
    setattr(SharedClient, _name, SharedClient._call)


@pytest.mark.parametrize("name", WATCHED_CALLS)
def test_scores_are_forgotten_before_and_after_others_touch_the_weights(name):
    client = SharedClient()
    client.model_config = types.SimpleNamespace(max_model_len=64)
    client.scorer = scorer = StepScorer.from_engine(client, Letters())
    scorer.score_cache.put(b"old", (1.0,), 0)
    assert asyncio.run(getattr(client, name)(1, key=2)) == "answer"
    assert client.seen == [(0, (1,), {"key": 2})]
    assert len(scorer.score_cache) == 0


def test_scores_are_forgotten_when_an_update_fails():
    client = SharedClient()
    client.model_config = types.SimpleNamespace(max_model_len=64)

    async def broken():
        scorer.score_cache.put(b"half", (1.0,), scorer.score_cache.generation)
        raise RuntimeError("broken off")

    client.update_weights = broken
    scorer = StepScorer.from_engine(client, Letters())
    with pytest.raises(RuntimeError, match="broken off"):
        asyncio.run(client.update_weights())
    assert len(scorer.score_cache) == 0


def test_the_wrong_call_for_the_engine_says_which_is_right(scorer):
    with pytest.raises(ValueError, match="call score"):
        asyncio.run(scorer.score_async("q", ["a"]))
    with pytest.raises(ValueError, match="score_async"):
        StepScorer(FakeAsyncEngine(), Letters()).score([("q", ["a"])])
    with pytest.raises(ValueError, match="offline.*async"):
        StepScorer.from_pretrained("anything", engine="turbo")
