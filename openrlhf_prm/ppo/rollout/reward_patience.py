"""How long a rollout waits for outcome rewards before it says that they hang.

A reward may take long because many wait for a checker, which judges one after the other. So what counts is silence: no
reward at all, for anybody in this process, for the whole limit.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from openrlhf_prm.options import Options, option

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class RewardOptions(Options):
    """`--reward.<field>`, beside the host's."""

    timeout: float = option(
        600.0,
        "seconds without any outcome reward, or answer of an agent's environment, while some are waited for, after "
        "which the run ends",
        above=0,
    )


class RewardTimeout(RuntimeError):
    """The reward function, the reward server, or an agent's environment hangs."""


class RewardPatience:
    """Waits for rewards in one event loop. `limit_s`: see `RewardOptions.timeout`; `silence`: what to call it."""

    def __init__(self, limit_s: float, silence: str = "no reward came"):
        self.limit_s, self.silence = limit_s, silence
        self._last = -float("inf")

    async def wait(self, work: Awaitable[Result]) -> Result:
        """What `work` gives. Raises RewardTimeout where it, and all others that are waited for here, give nothing for
        the limit; a thread that hangs cannot be ended and goes with its process.
        """
        task = asyncio.ensure_future(work)
        began, said = time.monotonic(), False
        try:
            while not task.done():
                silent = time.monotonic() - max(began, self._last)
                if silent >= self.limit_s:
                    raise RewardTimeout(f"{self.silence} for {self.limit_s:g} s (--reward.timeout)")
                if silent >= self.limit_s / 4 and not said:
                    logger.warning("%s for %.0f s", self.silence, silent)
                    said = True
                pauses = (self.limit_s, self.limit_s / 4) if not said else (self.limit_s,)
                await asyncio.wait({task}, timeout=min(pause - silent for pause in pauses if pause > silent))
        except BaseException:
            task.cancel()
            raise
        self._last = time.monotonic()
        return task.result()
