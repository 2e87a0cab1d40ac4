"""What of a solution is asked for, against an engine that is a function of the token prefix."""

import pytest
from letter_prm import FakeEngine, Letters, expected

from vllm_prm.engines import PoolAnswer
from vllm_prm.errors import StepScoringError
from vllm_prm.scorer import StepScorer


@pytest.fixture
def scorer():
    return StepScorer(FakeEngine(), Letters())


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
