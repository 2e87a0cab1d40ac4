"""What is asked for of sums of log-probabilities, against engines that cache whole blocks."""

import random

import pytest
from character_pair import BLOCK, expected, make_scorer

from vllm_prm.engines import PoolAnswer
from vllm_prm.errors import StepScoringError


@pytest.mark.parametrize("boundaries", ["eurus", "exact"])
@pytest.mark.parametrize("score_cache_size", [0, 5, 1000])
def test_any_schedule_gives_what_scratch_gives(boundaries, score_cache_size):
    """Growing, branching and repeating chains, with a cache that forgets: always the sums of a single pass."""
    scorer = make_scorer(score_cache_size, boundaries=boundaries)
    rng = random.Random(boundaries + str(score_cache_size))
    chains = [[]]
    for _ in range(60):
        chain = [*rng.choice(chains), rng.choice(["a.", "ab.", "abc=12", "so b is 7.", "", "ab"])]
        chains.append(chain)
        asked = rng.sample(chains, min(3, len(chains)))
        for got, steps in zip(scorer.score([("q?", steps) for steps in asked]), asked, strict=True):
            assert got == pytest.approx(expected(scorer.family, "q?", steps), abs=1e-12)
        if rng.random() < 0.1:
            rng.choice(scorer.engine.engines).reset_prefix_cache()
        if rng.random() < 0.1:
            scorer.score_cache.clear()


@pytest.mark.parametrize("boundaries", ["eurus", "exact"])
def test_a_growing_chain_forwards_little_more_than_its_new_tokens(boundaries):
    scorer = make_scorer(boundaries=boundaries)
    steps = [f"so a{k} is {k}+{k}." for k in range(20)]
    for count in range(1, len(steps) + 1):
        scorer.score([("what is a?", steps[:count])])
    tokens = len(scorer.family.render("what is a?", steps).token_ids)
    for engine in scorer.engine.engines:
        assert all(request.read_prefix_cache for request in engine.requests)
        # Each growth runs its last block again, and the closing token of the template.
        assert tokens - 1 <= engine.forwarded <= tokens + len(steps) * (BLOCK + 2)
    usage = scorer.usage
    assert usage.computed_tokens == sum(engine.forwarded for engine in scorer.engine.engines)
    before = scorer.usage.computed_tokens
    scorer.score([("what is a?", steps)])
    assert scorer.usage.computed_tokens == before, "a known solution reached the engine"


def test_exact_chains_never_ask_twice():
    """What the prefix cache hides is what was summed before: one request for each growth, block boundaries included."""
    scorer = make_scorer(boundaries="exact")
    steps = [letter * length + "." for length, letter in enumerate("abcdefghij", start=1)]
    for count in range(1, len(steps) + 1):
        scorer.score([("q", steps[:count])])
    assert [len(engine.requests) for engine in scorer.engine.engines] == [len(steps)] * 2


@pytest.mark.parametrize("length", range(4, 8))
def test_branches_that_begin_alike_run_one_block_again(length):
    scorer = make_scorer(boundaries="exact", number_steps=False)
    trunk = "abcdefgh"[:length]
    scorer.score([("q?", [trunk, "klmnopqrs"])])
    before, again = [engine.forwarded for engine in scorer.engine.engines], []
    branch = [trunk, "klmxyz"]
    [scores] = scorer.score([("q?", branch)])
    assert scores == pytest.approx(expected(scorer.family, "q?", branch), abs=1e-12)
    for engine, done in zip(scorer.engine.engines, before, strict=True):
        # Where the block with the shared words was full, it is run a second time; nothing before it is.
        assert all(request.read_prefix_cache for request in engine.requests)
        assert engine.forwarded - done <= 4 * BLOCK
        again.append(len(engine.requests) - 2)
    assert again == [1, 1]


def test_sums_forgotten_far_back_leave_the_prefix_cache_unread():
    scorer = make_scorer(boundaries="exact")
    steps = ["abcdefghij", "klmnopqrstuvw", "x"]
    scorer.score([("q?", steps)])
    scorer.score_cache.clear()
    assert scorer.score([("q?", steps)])[0] == pytest.approx(expected(scorer.family, "q?", steps), abs=1e-12)
    assert [request.read_prefix_cache for request in scorer.engine.engines[0].requests] == [True, True, True, False]


def test_the_same_tokens_cut_elsewhere_are_another_sum():
    scorer = make_scorer(boundaries="exact", number_steps=False)
    whole, cut = ["a\n\nb"], ["a", "b"]
    assert scorer.family.render("q", whole).token_ids == scorer.family.render("q", cut).token_ids
    for steps in (whole, cut, whole):
        assert scorer.score([("q", steps)])[0] == pytest.approx(expected(scorer.family, "q", steps), abs=1e-12)


def test_an_engine_that_leaves_a_sum_out_is_an_error():
    scorer = make_scorer()
    scorer.engine.engines[1].answer = lambda request: PoolAnswer({end: (0.0, 0.0) for _, end in request.spans}, 0)
    with pytest.raises(StepScoringError, match="no score"):
        scorer.score([("q", ["a"])])
