"""An engine behind an OpenAI-compatible `POST /v1/completions`, such as `vllm serve`."""

import asyncio
from typing import Any

from openrlhf_prm.annotation.scheduler import EngineLost
from openrlhf_prm.cluster.workers import Completion, UnfinishedCompletion, was_cut
from vllm_prm.api_keys import key_from

API_KEY = "OPENAI_API_KEY"
"""Environment variable with the bearer token, where the server wants one."""

PATIENCE_S = 600.0


class RefusedRequest(RuntimeError):
    """A server refused what one request asks for (400, 413, 422)."""


class UrlEngine:
    """Samples continuations over HTTP.

    The prompt goes as token ids. vLLM returns the sampled ids (`return_token_ids`); from a server that does not, the
    text is tokenised here, which changes no label but may let the server's prefix cache miss the last tokens.

    A server that cannot be reached, is overloaded (429) or fails (5xx) raises EngineLost; one that refuses a request
    raises RefusedRequest, one that refuses all of them (other 4xx) RuntimeError, with its words. `api_key_env`: the
    environment variable with the bearer token, or with `_FILE` behind its name that of a file with it.
    """

    def __init__(
        self,
        url: str,
        tokenizer: Any,
        patience_s: float = PATIENCE_S,
        transport: Any = None,
        api_key_env: str = API_KEY,
    ):
        import httpx

        key = key_from(api_key_env)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        root = url.rstrip("/").removesuffix("/v1")
        self.url = url
        self.tokenizer = tokenizer
        self.patience_s = patience_s
        self.model: str | None = None
        self.context: int | None = None
        """Tokens of a prompt and its response together, at most; None where the server does not say."""
        unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=256)  # the server queues
        self.client = httpx.AsyncClient(
            base_url=root, headers=headers, timeout=PATIENCE_S, limits=unlimited, transport=transport
        )

    async def ready(self) -> None:
        """Waits until the server answers, and learns the name of its model. Raises RuntimeError after `patience_s`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.patience_s
        while True:
            try:
                models = await self._request("GET", "/v1/models")
                self.model, self.context = models["data"][0]["id"], models["data"][0].get("max_model_len")
                return
            except EngineLost as error:
                if loop.time() > deadline:
                    raise RuntimeError(f"{self.url} did not answer for {self.patience_s:g} s: {error}") from error
                await asyncio.sleep(min(2.0, self.patience_s / 10))

    async def generate(self, prompt: list[int], **sampling) -> list[Completion]:
        """`sampling`: n, max_tokens, temperature, top_p."""
        if self.model is None:
            await self.ready()
        body = {"model": self.model, "prompt": prompt, "return_token_ids": True, **sampling}
        answer = await self._request("POST", "/v1/completions", json=body)
        try:
            return [
                Completion(choice["text"], self._token_ids(choice), was_cut(choice["finish_reason"]))
                for choice in answer["choices"]
            ]
        except UnfinishedCompletion as error:  # the question is tried again
            raise EngineLost(f"{self.url}: {error}") from error

    async def cache_counters(self) -> tuple[int, int]:
        """Prompt tokens found in the KV cache, and prompt tokens in all, as the server's `/metrics` counts them; (0, 0)
        where it has none or cannot be asked.
        """
        import httpx
        from prometheus_client.parser import text_string_to_metric_families

        try:
            response = await self.client.get("/metrics")
        except httpx.TransportError:
            return 0, 0
        if response.status_code != 200:
            return 0, 0
        totals = {"vllm:prefix_cache_hits_total": 0.0, "vllm:prefix_cache_queries_total": 0.0}
        for family in text_string_to_metric_families(response.text):
            for sample in family.samples:
                if sample.name in totals:
                    totals[sample.name] += sample.value
        hits, queries = totals.values()
        return int(hits), int(queries)

    def _token_ids(self, choice: dict) -> list[int]:
        if choice.get("token_ids") is not None:
            return list(choice["token_ids"])
        return list(self.tokenizer(choice["text"], add_special_tokens=False)["input_ids"])

    async def _request(self, method: str, path: str, **options) -> dict:
        import httpx

        try:
            response = await self.client.request(method, path, **options)
        except httpx.TransportError as error:
            raise EngineLost(f"{self.url}: {type(error).__name__} {error}") from error
        if response.status_code == 429 or response.status_code >= 500:
            raise EngineLost(f"{self.url}: {response.status_code} {response.text[:200]}")
        if response.status_code != 200:
            kind = RefusedRequest if response.status_code in (400, 413, 422) else RuntimeError
            raise kind(f"{self.url}{path} refused: {response.status_code} {response.text[:500]}")
        return response.json()
