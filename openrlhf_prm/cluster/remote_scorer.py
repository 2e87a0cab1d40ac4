"""Servers of a PRM (`vllm-prm serve`) as one scorer."""

import os
import random
import time
from collections.abc import Sequence

from openrlhf_prm.cluster.checks import require_urls
from openrlhf_prm.cluster.engine_options import ServerFlags
from vllm_prm.errors import ServiceUnavailableError

REST_S = 60.0


class RemoteScorer:
    """A client of running servers, with the interface of `workers.ScoringPool`. Connects where it is first used.

    A solution goes to the server with the fewest of this client's solutions in flight, which a slow server has many of;
    of several such to any, because other processes choose too. A server that cannot be reached, or stays overloaded,
    gets nothing for `REST_S` seconds, and its solutions go to the others.
    """

    def __init__(self, urls: Sequence[str], api_key_env: str | None = None):
        self.urls = tuple(urls)
        self.api_key_env = api_key_env
        self.in_flight = [0] * len(self.urls)
        self.rests_until = [0.0] * len(self.urls)
        self._clients: list | None = None

    async def score(self, question: str, steps: list[str], truncate: bool = False) -> list[float | None]:
        """Scores of one solution; with `truncate` None for steps beyond the PRM's context. Raises what a server says of
        it, and ServiceUnavailableError where none answers.
        """
        if not steps:
            return []
        untried = set(range(len(self.urls)))
        while True:
            index = self._chosen(untried)
            untried.remove(index)
            self.in_flight[index] += 1
            try:
                return await self._client(index).score_async(question, steps, truncate=truncate)
            except ServiceUnavailableError:
                self.rests_until[index] = time.monotonic() + REST_S
                if not untried:
                    raise
            finally:
                self.in_flight[index] -= 1

    def _chosen(self, untried: set[int]) -> int:
        now = time.monotonic()
        return min(untried, key=lambda index: (self.rests_until[index] > now, self.in_flight[index], random.random()))

    def _client(self, index: int):
        if self._clients is None:
            from vllm_prm.scorer import StepScorer

            self._clients = [StepScorer.from_url(url, self.api_key_env) for url in self.urls]
        return self._clients[index]


def check_servers(servers: ServerFlags, model: str | None) -> None:
    """Raises ValueError, naming the flag, for servers that cannot be asked, and for servers beside a PRM of our own."""
    if model is not None and servers.url:
        raise ValueError("--prm.model_name_or_path and --prm.url exclude each other")
    require_urls("--prm.url", servers.url)
    if servers.api_key_env is not None and not servers.url:
        raise ValueError("--prm.api_key_env needs --prm.url")
    if servers.api_key_env is not None and not os.environ.get(servers.api_key_env):
        raise ValueError(f"--prm.api_key_env: the environment variable {servers.api_key_env} is not set")
