"""Scores are forgotten when the weights of a shared engine may have changed.

On vLLM's server the weights change behind the scorer's back: through `/collective_rpc`, `/update_weights`,
`/finish_weight_update`, `/wake_up` or another plugin, always by a call of the engine client that all of them share. So
the scorer listens there. It also listens to `reset_prefix_cache` and `pause_generation`, which drop cached keys and
values: a score must not outlive the keys and values it was computed with. Whoever updates weights must reset the prefix
cache afterwards, as for any vLLM engine; scores need no further call.
"""

import functools
from collections.abc import Callable
from typing import Any

WATCHED_CALLS = (
    "collective_rpc",
    "start_weight_update",
    "update_weights",
    "finish_weight_update",
    "update_weight_version",
    "reset_prefix_cache",
    "pause_generation",
    "sleep",
    "wake_up",
)


def forget_on_weight_update(client: Any, forget: Callable[[], None]) -> None:
    """Call `forget` before and after each of `WATCHED_CALLS` of the engine client `client`.

    Before, so that no request answers from scores of weights that are being replaced; after, so that nothing computed
    meanwhile stays.
    """
    for name in WATCHED_CALLS:
        setattr(client, name, _watched(getattr(client, name), forget))


def _watched(call: Callable, forget: Callable[[], None]) -> Callable:
    @functools.wraps(call)
    async def watched(*args: Any, **kwargs: Any) -> Any:
        forget()
        try:
            return await call(*args, **kwargs)
        finally:
            forget()

    return watched
