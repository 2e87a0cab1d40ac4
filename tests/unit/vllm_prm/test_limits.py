import argparse

import pytest

from vllm_prm.limits import Limits, add_limit_flags, limits_from_flags
from vllm_prm.protocol import StepRewardRequest


def parse(*flags):
    parser = argparse.ArgumentParser()
    add_limit_flags(parser)
    return limits_from_flags(parser.parse_args(flags))


def test_flags_reach_the_server_through_its_environment():
    assert parse() == Limits() == Limits.from_environment({})
    given = parse("--max-items", "3", "--max-steps", "4", "--max-bytes", "500", "--score-cache-size", "0")
    assert given == Limits(max_items=3, max_steps=4, max_bytes=500, score_cache_size=0)
    assert Limits.from_environment({"HOME": "/h", **given.environment()}) == given
    # vLLM warns of variables of that prefix which it does not know.
    assert not any(name.startswith("VLLM_") for name in given.environment())


def test_limits_out_of_range_name_the_flag():
    with pytest.raises(ValueError, match="--max-steps must be 1 or more, got 0"):
        parse("--max-steps", "0")
    with pytest.raises(ValueError, match="--score-cache-size must be 0 or more"):
        parse("--score-cache-size", "-1")
    with pytest.raises(ValueError, match="STEP_REWARDS_MAX_ITEMS.*'many'"):
        Limits.from_environment({"STEP_REWARDS_MAX_ITEMS": "many"})


def test_requests_at_and_beyond_a_limit():
    limits = Limits(max_items=2, max_steps=3)
    full = {"data": [{"question": "q", "steps": ["a"] * 3}, {"question": "q", "response": "a\n\nb\nc\n"}]}
    limits.check(StepRewardRequest(**full), "\n")
    with pytest.raises(ValueError, match=r"3 solutions.*takes 2.*--max-items"):
        limits.check(StepRewardRequest(data=[{"question": "q", "steps": []}] * 3), "\n")
    with pytest.raises(ValueError, match=r"data\[1\] has 4 steps.*takes 3.*--max-steps"):
        limits.check(
            StepRewardRequest(data=[full["data"][0], {"question": "q", "response": "a;b;c;d", "splitter": ";"}]), "\n"
        )
    with pytest.raises(ValueError, match=r"data\[0\] has 4 steps"):
        limits.check(StepRewardRequest(question="q", steps=[""] * 4), "\n")


def test_a_chat_of_too_many_messages_is_refused():
    messages = [{"role": "user", "content": "q"}] * 3
    request = StepRewardRequest(messages=messages, steps=["a"])
    Limits(max_messages=3).check(request, "\n")
    with pytest.raises(ValueError, match=r"data\[0\] has 3 messages.*takes 2.*--max-messages"):
        Limits(max_messages=2).check(request, "\n")
