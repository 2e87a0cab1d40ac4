"""Servers of a PRM (`vllm-prm serve`) as one scorer."""

import asyncio
import logging
import random
import time

from openrlhf_prm.cluster.checks import require_key, require_urls
from openrlhf_prm.cluster.engine_options import SERVER_FLAGS, ServerFlags
from vllm_prm.errors import ServiceUnavailableError

logger = logging.getLogger(__name__)

REST_S = 60.0
PAUSE_S = 2.0
SAID_EVERY_S = 30.0


class RemoteScorer:
    """A client of running servers, with the interface of `workers.ScoringPool`. Connects where it is first used.

    A solution goes to the server with the fewest of this client's solutions in flight, which a slow server has many of;
    of several such to any, because other processes choose too. A server that cannot be reached, or is overloaded, or
    does not answer, gets nothing for `REST_S` seconds where there are others, which then get its solutions. When all
    are away they are asked again, until `servers.patience_s` is over.
    """

    def __init__(self, servers: ServerFlags):
        self.servers = servers
        self.urls = tuple(servers.url)
        self.in_flight = [0] * len(self.urls)
        self.rests_until = [0.0] * len(self.urls)
        self._silent_until = 0.0
        self._clients: list | None = None

    async def score(self, question: str, steps: list[str], truncate: bool = False) -> list[float | None]:
        """Scores of one solution; with `truncate` None for steps beyond the PRM's context. Raises what a server says of
        it, and ServiceUnavailableError where none answers.
        """
        if not steps:
            return []
        began = time.monotonic()
        while True:
            try:
                return await self._from_any(question, steps, truncate)
            except ServiceUnavailableError as error:
                # A single server's client has been as patient as it may.
                if len(self.urls) == 1 or time.monotonic() - began + PAUSE_S > self.servers.patience_s:
                    raise
                self._say("no server of the PRM answers (%s); all are asked again", error)
            await asyncio.sleep(PAUSE_S)

    async def _from_any(self, question: str, steps: list[str], truncate: bool) -> list[float | None]:
        untried = set(range(len(self.urls)))
        while True:
            index = self._chosen(untried)
            untried.remove(index)
            self.in_flight[index] += 1
            try:
                return await self._client(index).score_async(question, steps, truncate=truncate)
            except ServiceUnavailableError as error:
                self.rests_until[index] = time.monotonic() + REST_S
                if not untried:
                    raise
                self._say("%s; its solutions go to other servers", error)
            finally:
                self.in_flight[index] -= 1

    def _say(self, text: str, error: Exception) -> None:
        """Once in a while, however many solutions wait."""
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + SAID_EVERY_S
            logger.warning(text, error)

    def _chosen(self, untried: set[int]) -> int:
        now = time.monotonic()
        return min(untried, key=lambda index: (self.rests_until[index] > now, self.in_flight[index], random.random()))

    def _client(self, index: int):
        if self._clients is None:
            from vllm_prm.scorer import StepScorer

            patience = self.servers.patience_s if len(self.urls) == 1 else 0.0
            options = {"timeout": self.servers.answer_s, "patience": patience}
            self._clients = [StepScorer.from_url(url, self.servers.api_key_env, **options) for url in self.urls]
        return self._clients[index]


def check_servers(servers: ServerFlags, model: str | None) -> None:
    """Raises ValueError, naming the flag, for servers that cannot be asked, and for servers beside a PRM of our own."""
    if model is not None and servers.url:
        raise ValueError("--prm.model_name_or_path and --prm.url exclude each other")
    require_urls("--prm.url", servers.url)
    for name in SERVER_FLAGS:
        if not servers.url and getattr(servers, name) != getattr(ServerFlags(), name):
            raise ValueError(f"--prm.{name} needs --prm.url")
    require_key("--prm.api_key_env", servers.api_key_env)
