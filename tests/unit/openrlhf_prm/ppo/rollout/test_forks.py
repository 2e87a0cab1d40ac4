"""Responses that go on from others of their group, with a scripted engine in the host's place."""

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from openrlhf_prm.advantages.forked_tree import ForkedTree
from openrlhf_prm.ppo.rollout.forks import ForkingEngine, QuestionForks

STEP = 9
"""The token that ends a step."""


@dataclass
class Sampling:
    max_tokens: int = 10
    min_tokens: int = 2


class Engine:
    """Writes the scripted continuations in order, each token with its log-probability."""

    def __init__(self, *script):
        self.script, self.asked = list(script), []

    async def generate(self, prompt_token_ids, sampling_params, multi_modal_data=None):
        self.asked.append((prompt_token_ids, sampling_params.max_tokens, sampling_params.min_tokens))
        await asyncio.sleep(0)
        tokens = self.script.pop(0)
        if isinstance(tokens, Exception):
            raise tokens
        logprobs = [{token: SimpleNamespace(logprob=-token)} for token in tokens]
        output = SimpleNamespace(token_ids=tokens, logprobs=logprobs)
        return SimpleNamespace(outputs=[output])


def step_ends(tokens):
    ends = [place + 1 for place, token in enumerate(tokens) if token == STEP]
    return ends if tokens and tokens[-1] == STEP else [*ends, len(tokens)]


def group(engine, branching="2x2", size=4, fork_at="steps"):
    async def run():
        question = QuestionForks(ForkedTree(branching=branching, fork_at=fork_at), size)
        engines = [ForkingEngine(engine, question, step_ends) for _ in range(size)]
        outputs = await asyncio.gather(
            *(one.generate([100, 101], Sampling(), multi_modal_data=None) for one in engines), return_exceptions=True
        )
        return engines, outputs

    return asyncio.run(run())


def tokens_of(outputs):
    return [output.outputs[0].token_ids for output in outputs]


def test_a_branch_is_a_whole_response_that_begins_as_another_one_did():
    engine = Engine([1, STEP, 2], [3, STEP, 4, STEP, 5], [6], [7, 8])
    engines, outputs = group(engine)
    assert tokens_of(outputs) == [[1, STEP, 2], [1, STEP, 6], [3, STEP, 4, STEP, 5], [3, STEP, 7, 8]]
    assert engine.asked == [
        *(([100, 101], 10, 2), ([100, 101], 10, 2)),
        *(([100, 101, 1, STEP], 8, 0), ([100, 101, 3, STEP], 8, 0)),
    ], "as many tokens in all, behind what was copied"
    assert [one.fork_ends for one in engines] == [(2,)] * 4
    logprobs = [
        {token: found.logprob for token, found in choices.items()} for choices in outputs[3].outputs[0].logprobs
    ]
    assert logprobs == [{3: -3}, {STEP: -STEP}, {7: -7}, {8: -8}]


def test_a_response_that_ended_before_its_fork_is_there_again():
    engine = Engine([1, 2], [STEP, 4], [5])
    engines, outputs = group(engine)
    assert tokens_of(outputs) == [[1, 2], [1, 2], [STEP, 4], [STEP, 5]]
    assert [one.fork_ends for one in engines] == [(), (), (1,), (1,)]


def test_branches_fork_again():
    trunks = [1, STEP, 2, STEP, 3], [4, STEP, 5, STEP, 6]
    engine = Engine(*trunks, [7], [8, STEP, 10], [11], [12, STEP, 13], [14], [15])
    engines, outputs = group(engine, "2x2x2", 8)
    assert tokens_of(outputs) == [
        *([1, STEP, 2, STEP, 3], [1, STEP, 2, STEP, 7], [1, STEP, 8, STEP, 10], [1, STEP, 8, STEP, 14]),
        *([4, STEP, 5, STEP, 6], [4, STEP, 5, STEP, 11], [4, STEP, 12, STEP, 13], [4, STEP, 12, STEP, 15]),
    ]
    assert [one.fork_ends for one in engines] == [(2, 4)] * 8


def test_who_waits_for_a_response_that_failed_fails_too():
    engine = Engine(RuntimeError("the engine died"), [3, STEP, 4], [5])
    _, outputs = group(engine)
    assert [isinstance(output, RuntimeError) for output in outputs] == [True, True, False, False]
    with pytest.raises(RuntimeError, match="the engine died"):
        raise outputs[1]


def test_a_branch_leaves_before_the_least_likely_token():
    engine = Engine([1, 2, 8, 3], [4, 5, 6], [7, 7], [8])
    engines, outputs = group(engine, fork_at="unsure")
    assert tokens_of(outputs) == [[1, 2, 8, 3], [1, 2, 7, 7], [4, 5, 6], [4, 5, 8]]
    assert [one.fork_ends for one in engines] == [(2,)] * 4
