"""Which positions a request of `/pooling` wants, kept from its first call to its last; no engine."""

import threading
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch

from vllm_prm.families import Rendered
from vllm_prm.io_processor import StepRewardIOProcessor
from vllm_prm.protocol import StepRewardItem


class Family:
    """A token per character; a step's score is the logit at its last one."""

    reward_token_ids = (0,)
    response_splitter = "\n"
    tokenizer = SimpleNamespace(get_vocab=lambda: {"a": 0})

    def render(self, question, steps):
        text, positions = question, []
        for step in steps:
            text += step
            positions.append(len(text) - 1)
        return Rendered([ord(letter) for letter in text], positions)

    def decode(self, raw):
        return [row[0] for row in raw]


@pytest.fixture
def processor():
    made = object.__new__(StepRewardIOProcessor)
    made.longest, made.family = 100, Family()
    made._in_flight, made._this_thread = OrderedDict(), threading.local()
    return made


def answer(prompt):
    """vLLM's output: a row (position, logit) per wanted position; the logit is the position."""
    rows = [[float(position), float(position)] for position in range(len(prompt["prompt_token_ids"]))]
    return SimpleNamespace(
        prompt_token_ids=prompt["prompt_token_ids"], outputs=SimpleNamespace(data=torch.tensor(rows))
    )


def solution(question, *steps):
    return StepRewardItem(question=question, steps=list(steps))


def test_two_requests_of_one_id_get_their_own_positions(processor):
    (first,) = processor.pre_process([solution("q", "ab", "c")], "same")
    (second,) = processor.pre_process([solution("question", "abc")], "same")
    assert processor.post_process([answer(first)], "same") == [{"index": 0, "step_rewards": [2.0, 3.0]}]
    assert processor.post_process([answer(second)], "same") == [{"index": 0, "step_rewards": [10.0]}]
    assert not processor._in_flight


def test_solutions_of_a_request_are_answered_in_order(processor):
    prompts = processor.pre_process([solution("q", "a"), solution("q", "bb"), solution("q", "a")], None)
    entries = processor.post_process([answer(prompt) for prompt in prompts], None)
    assert [entry["step_rewards"] for entry in entries] == [[1.0], [2.0], [1.0]]
    assert not processor._in_flight
