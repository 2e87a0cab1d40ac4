"""Requests for nothing never reach the engine."""

import asyncio

import pytest
from vllm import PoolingParams

from vllm_prm.plain_requests import refuse_plain_requests


class Client:
    """Answers every request."""

    async def encode(self, prompt, pooling_params, request_id):
        yield (prompt, pooling_params.extra_kwargs, request_id)


@pytest.fixture
def client():
    made = Client()
    refuse_plain_requests(made)
    return made


async def answers(generator):
    return [answer async for answer in generator]


@pytest.mark.parametrize(
    "extra", [None, {}, {"token_ids": [1, 2]}, {"step_positions": []}, {"spans": [], "targets": []}]
)
def test_a_request_that_names_no_step_is_refused(client, extra):
    params = PoolingParams(task="token_classify", extra_kwargs=extra)
    with pytest.raises(ValueError, match="POST /v1/step_rewards"):
        client.encode(prompt="hello", pooling_params=params, request_id="r")


@pytest.mark.parametrize("extra", [{"step_positions": [3]}, {"spans": [(1, 2)], "targets": [5]}])
def test_ours_pass(client, extra):
    params = PoolingParams(task="token_classify", extra_kwargs=extra)
    for call in (
        client.encode("p", params, request_id="r"),
        client.encode(request_id="r", prompt="p", pooling_params=params),
    ):
        assert asyncio.run(answers(call)) == [("p", extra, "r")]
