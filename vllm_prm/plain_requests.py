"""Pooling requests that name no step are refused, instead of answered with nothing.

On vLLM's server others reach the same engine: `POST /pooling` with `input` or `messages`, `/invocations`, another
plugin. Their prompts name no step positions, and the pooler would read the head nowhere. All of them end in one call of
the engine client, which is watched here; vLLM answers the error with status 400.
"""

import functools
from collections.abc import AsyncGenerator
from typing import Any

POSITIONS = ("step_positions", "spans")
"""Names in `PoolingParams.extra_kwargs` under which our poolers are told what to read."""


def refuse_plain_requests(client: Any) -> None:
    """From now on `client.encode` raises `ValueError` for pooling parameters that name no positions."""
    encode = client.encode

    @functools.wraps(encode)
    def checked(prompt: Any, pooling_params: Any, *args: Any, **kwargs: Any) -> AsyncGenerator:
        if not any((pooling_params.extra_kwargs or {}).get(name) for name in POSITIONS):
            raise ValueError(
                "this model scores the steps of solutions, and the request names none: POST /v1/step_rewards with "
                'question and steps, or /pooling with {"data": {"question": ..., "steps": [...]}}'
            )
        return encode(prompt, pooling_params, *args, **kwargs)

    client.encode = checked
