"""Solutions in, scores out: calls, refusals, and weights that change meanwhile."""

import asyncio
import math

import pytest
from letter_prm import FakeAsyncEngine, FakeEngine, Letters, expected

from vllm_prm.errors import ContextLengthError, StepScoringError
from vllm_prm.protocol import StepRewardItem
from vllm_prm.scorer import StepScorer


@pytest.fixture
def scorer():
    return StepScorer(FakeEngine(), Letters())


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


def test_the_wrong_call_for_the_engine_says_which_is_right(scorer):
    with pytest.raises(ValueError, match="call score"):
        asyncio.run(scorer.score_async("q", ["a"]))
    with pytest.raises(ValueError, match="score_async"):
        StepScorer(FakeAsyncEngine(), Letters()).score([("q", ["a"])])
    with pytest.raises(ValueError, match="offline.*async"):
        StepScorer.from_pretrained("anything", engine="turbo")
