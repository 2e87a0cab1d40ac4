"""Requests of one call that wait for the engine at the same time."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any


async def together(coroutines: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """What each returns, in order. Where one fails, or the call is cancelled, the others are cancelled, too, and with
    them their requests.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
