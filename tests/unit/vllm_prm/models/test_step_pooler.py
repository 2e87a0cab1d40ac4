"""The pooler's rows over prefill pieces, cached prefixes and several requests in one batch; no engine."""

import torch
from pooler_schedule import forward
from vllm import PoolingParams
from vllm.v1.pool.metadata import PoolingStates

from vllm_prm.models.step_pooler import StepPooler


class Request:
    """Hidden state t of this request is `base` + t."""

    def __init__(self, base, length, positions, token_ids=(1, 2)):
        self.base, self.length = base, length
        kwargs = {"step_positions": positions, "token_ids": list(token_ids)}
        self.params = PoolingParams(task="token_classify", extra_kwargs=kwargs)
        self.state = PoolingStates()


def pooler():
    """The logit of token v at hidden state h is h * v."""
    return StepPooler(lambda hidden, token_ids: hidden[:, :1] * torch.tensor(token_ids), (3,))


def test_requests_share_a_batch_and_may_read_other_tokens():
    first, second, idle = Request(10, 6, [2, 5]), Request(20, 4, [3], [4]), Request(0, 3, [])
    output = forward(pooler(), [(first, 0, 6), (idle, 0, 3), (second, 0, 4)])
    assert output[0].tolist() == [[2, 12, 24], [5, 15, 30]]
    assert output[1].shape == (0, 3)
    assert output[2].tolist() == [[3, 92]]


def test_a_warm_up_request_has_no_arguments():
    idle = Request(0, 4, [])
    idle.params.extra_kwargs = None
    assert forward(pooler(), [(idle, 0, 4)])[0].shape == (0, 2)


def test_a_prompt_in_pieces_answers_once_it_is_complete():
    reading, request = pooler(), Request(10, 6, [1, 4, 5])
    assert forward(reading, [(request, 0, 2)]) == [None]
    assert forward(reading, [(request, 2, 3)]) == [None]
    assert [row[0] for row in forward(reading, [(request, 5, 1)])[0].tolist()] == [1, 4, 5]
    assert request.state.hidden_states_cache == []


def test_positions_in_a_cached_prefix_have_no_row():
    [output] = forward(pooler(), [(Request(10, 6, [1, 3, 5]), 3, 3)])
    assert output.tolist() == [[3, 13, 26], [5, 15, 30]]


def test_a_preempted_request_may_repeat_rows():
    reading, request = pooler(), Request(10, 4, [1, 3])
    assert forward(reading, [(request, 0, 2)]) == [None]
    [output] = forward(reading, [(request, 0, 4)])
    assert output.tolist() == [[1, 11, 22], [1, 11, 22], [3, 13, 26]]
