"""A prompt for each prefix, against an engine that is a function of the prompt."""

import asyncio
import threading

import pytest
from tiny_tokenizers import qwen_tokenizer, with_special

from vllm_prm.engines import AsyncEngine, OfflineEngine, PoolAnswer
from vllm_prm.errors import ContextLengthError, StepScoringError
from vllm_prm.families.pathfinder import PathFinderFamily
from vllm_prm.families.prefix_value import REASON_FLUX, PrefixValueFamily
from vllm_prm.prefix_scorer import PrefixScorer
from vllm_prm.scorer import Usage
from vllm_prm.text_bounds import INLINE, most_characters

STEPS = ["a", "bb", "c"]


class Engine(OfflineEngine):
    """Answers each position by `read(token_ids up to it)`; remembers what it was asked, call by call."""

    def __init__(self, read, max_model_len=4096):
        self.read, self.max_model_len, self.calls = read, max_model_len, []

    def pool(self, requests):
        self.calls.append([len(request.token_ids) for request in requests])
        return [self.one(request) for request in requests]

    def one(self, request):
        rows = {at: self.read(request.token_ids[: at + 1]) for at in request.step_positions}
        return PoolAnswer(rows, cached_tokens=len(request.token_ids) // 2)


class Concurrent(AsyncEngine):
    def __init__(self, inner):
        self.inner, self.max_model_len, self.asked = inner, inner.max_model_len, []

    async def pool_one(self, request):
        self.asked.append(len(request.token_ids))
        await asyncio.sleep(0)
        return self.inner.one(request)


def value_scorer(read=lambda tokens: (float(len(tokens)),), engine=Engine, **arguments):
    family = PrefixValueFamily(qwen_tokenizer(), score="raw", **REASON_FLUX)
    return PrefixScorer(engine(read, **arguments), family)


def lengths(steps):
    """Tokens of each prefix after the question "q"; a blank line is one token."""
    return [1 + sum(map(len, steps[:count])) + count - 1 for count in range(1, len(steps) + 1)]


def test_each_step_is_scored_at_the_end_of_its_prefix():
    scorer = value_scorer()
    assert scorer.score([("q", STEPS), ("q", ["x"]), ("q", [])]) == [lengths(STEPS), [2], []]
    # The longest prompts first, so that the others find their beginnings in the engine's cache.
    assert scorer.engine.calls == [[lengths(STEPS)[-1], 2], lengths(STEPS)[:-1]]
    usage = scorer.usage
    assert (usage.requests, usage.steps, usage.prompt_tokens) == (3, 4, sum(lengths(STEPS)) + 2)
    assert usage.computed_tokens + usage.cached_tokens == usage.prompt_tokens


def test_a_growing_solution_costs_its_new_step():
    scorer = value_scorer()
    for count in range(1, 4):
        assert scorer.score([("q", STEPS[:count])]) == [lengths(STEPS)[:count]]
    assert scorer.engine.calls == [[length] for length in lengths(STEPS)]
    assert scorer.usage.score_cache_hits == 1 + 2


def test_beyond_the_context():
    limit = lengths(STEPS)[1]
    with pytest.raises(ContextLengthError, match=f"have {limit + 2} tokens, the PRM takes {limit}"):
        value_scorer(max_model_len=limit + 1).score([("q", STEPS)])
    short = value_scorer(max_model_len=limit + 1)
    assert short.score([("q", STEPS)], truncate=True) == [[*lengths(STEPS)[:2], None]]
    assert value_scorer(max_model_len=2).score([("q", STEPS)], truncate=True) == [[None] * 3]


def test_a_score_that_is_no_number_is_an_error():
    with pytest.raises(StepScoringError, match=r"steps \[0\]"):
        value_scorer(lambda tokens: (float("nan"),)).score([("q", ["a"])])


def finder(read, **arguments):
    tokenizer = with_special(qwen_tokenizer(), "<+>", "<->", "<extra>")
    return PrefixScorer(Engine(read, **arguments), PathFinderFamily(tokenizer))


def test_two_passes_that_depend_on_one_another():
    good, bad = (0.0, -1.0), (0.0, 1.0)
    scorer = finder(lambda tokens: good)
    [scores] = scorer.score([("q", ["a", "b"])])
    assert scores == pytest.approx([0.7310586, 0.7310586])
    assert [len(call) for call in scorer.engine.calls] == [1, 1, 1, 1], "the longest prefix to its end, then the other"
    worse = finder(lambda tokens: bad)
    assert worse.score([("q", ["a", "b"])]) == [[-1.0, -1.0]]
    assert len(worse.engine.calls) == 2


def test_a_second_pass_without_room_has_no_score():
    first = len(finder(None).family.render("q", ["a"]).token_ids)
    scorer = finder(lambda tokens: (0.0, -1.0), max_model_len=first + 2)
    assert scorer.score([("q", ["a"])], truncate=True) == [[None]]
    with pytest.raises(ContextLengthError):
        finder(lambda tokens: (0.0, -1.0), max_model_len=first + 2).score([("q", ["a"])])


def test_asynchronous_calls():
    scorer = value_scorer(engine=lambda read: Concurrent(Engine(read)))

    async def run():
        return await asyncio.gather(*(scorer.score_async("q", STEPS[:count]) for count in range(4)))

    assert asyncio.run(run()) == [lengths(STEPS)[:count] for count in range(4)]
    with pytest.raises(ValueError, match="score_async"):
        scorer.score([("q", STEPS)])
    with pytest.raises(ValueError, match="call score"):
        asyncio.run(value_scorer().score_async("q", STEPS))


def test_a_long_text_is_read_beside_the_event_loop_and_one_far_too_long_not_at_all(monkeypatch):
    limit = 2 * INLINE
    scorer = value_scorer(engine=lambda read: Concurrent(Engine(read, max_model_len=limit + 1)))
    family, threads = scorer.family, []
    read = family.read

    def watched(question, steps):
        threads.append(threading.current_thread())
        return read(question, steps)

    monkeypatch.setattr(family, "read", watched)
    assert asyncio.run(scorer.score_async("q", ["a" * (INLINE + 1)])) == [INLINE + 2]
    assert asyncio.run(scorer.score_async("q", ["a"])) == [2]
    main = threading.main_thread()
    assert [thread is main for thread in threads] == [False, True]
    far = "a" * (most_characters(family, limit) + 1)
    with pytest.raises(ContextLengthError, match="characters in 2 steps"):
        asyncio.run(scorer.score_async("q", ["a", far]))
    assert len(threads) == 2
    assert asyncio.run(scorer.score_async("q", ["a", far, "b"], truncate=True)) == [2, None, None]


def test_no_answer_mixes_two_weights():
    scorer = value_scorer(engine=lambda read: Concurrent(Engine(read)))
    usage = Usage()

    async def run():
        task = asyncio.create_task(scorer.score_async("q", STEPS, usage=usage))
        while len(scorer.engine.asked) < 2:
            await asyncio.sleep(0)
        scorer.score_cache.clear()
        return await task

    assert asyncio.run(run()) == lengths(STEPS)
    assert len(scorer.engine.asked) == 2 * len(STEPS)
    assert usage.requests == 1 and usage.computed_tokens > usage.prompt_tokens / 2
