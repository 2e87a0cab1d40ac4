"""Client of `POST /v1/step_rewards`, synchronous and asynchronous, with retries.

Retried: a connection that fails or times out, and the statuses that say "later" (408, 429, 502, 503, 504), waiting
`Retry-After` or 0.5 s doubled each time, with jitter so that many rollout workers do not return in step. Not retried:
everything the same request would meet again.
"""

import asyncio
import os
import random
import time
from collections.abc import Sequence
from typing import Any

import httpx

from vllm_prm.errors import AuthenticationError, ContextLengthError, ServiceUnavailableError, StepScoringError
from vllm_prm.families.prm_family import Question
from vllm_prm.protocol import CritiquedStepRewards, StepRewardResponse, StepRewards

RETRIED_STATUSES = {408, 429, 502, 503, 504}
LONGEST_WAIT_S = 30.0


class HTTPService:
    """A step-reward server at `url` (with or without `/v1` at its end)."""

    def __init__(
        self,
        url: str,
        api_key_env: str | None = None,
        *,
        model: str | None = None,
        timeout: float = 600.0,
        max_retries: int = 5,
        max_connections: int = 256,
        items_per_request: int = 256,
    ) -> None:
        """`timeout` in seconds per attempt; a queued request waits inside it. `items_per_request`: solutions that
        `score` sends together, at most the server's --max-items. `ValueError` for an unusable url or number, or an
        `api_key_env` that names no variable."""
        if items_per_request < 1:
            raise ValueError(f"items_per_request must be 1 or more, got {items_per_request}")
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url must start with http:// or https://, got {url!r}")
        if api_key_env is not None and api_key_env not in os.environ:
            raise ValueError(f"api_key_env names the environment variable {api_key_env!r}, which is not set")
        key = "" if api_key_env is None else os.environ[api_key_env].strip()  # files with secrets end in a newline
        if api_key_env is not None and not (key and key.isascii() and key.isprintable()):
            # The client's own error about a bad header would show the key.
            raise ValueError(f"the environment variable {api_key_env} must hold a key of printable ASCII characters")
        self.endpoint = url.rstrip("/").removesuffix("/v1") + "/v1/step_rewards"
        self.model = model
        self.max_retries = max_retries
        self.items_per_request = items_per_request
        self._options: dict[str, Any] = {
            "timeout": httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            "limits": httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
        }
        self._client: httpx.Client | None = None
        self._async_client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def score(self, pairs: Sequence[tuple[Question, Sequence[str]]], truncate: bool, usage: Any) -> list[list]:
        """Scores per solution, in order; adds the server's token counts to `usage`."""
        return [entry.step_rewards for entry in self._ask(pairs, truncate, usage)]

    def output_fields(self, pairs: Sequence[tuple[Question, Sequence[str]]], truncate: bool, usage: Any) -> list[dict]:
        """The same, with what the server says beside the scores: a generative PRM counts its critiques."""
        return [entry.model_dump(exclude={"index", "object", "score"}) for entry in self._ask(pairs, truncate, usage)]

    def _ask(
        self, pairs: Sequence[tuple[Question, Sequence[str]]], truncate: bool, usage: Any
    ) -> list[StepRewards | CritiquedStepRewards]:
        if self._client is None:
            self._client = httpx.Client(**self._options)
        answers: list[StepRewards | CritiquedStepRewards] = []
        for start in range(0, len(pairs), self.items_per_request):
            chunk = pairs[start : start + self.items_per_request]
            body = self._body(chunk, truncate)
            for attempt in range(self.max_retries + 1):
                try:
                    response, failure = self._client.post(self.endpoint, json=body), None
                except httpx.TransportError as error:
                    response, failure = None, error
                if not self._must_retry(response, failure, attempt):
                    break
                time.sleep(_wait(response, attempt))
            answers += _parse(response, chunk, usage)
        return answers

    async def score_async(self, question: Question, steps: Sequence[str], truncate: bool, usage: Any) -> list:
        """Scores of one solution; adds the server's token counts to `usage`."""
        if not steps:
            return []
        loop = asyncio.get_running_loop()
        if self._async_client is None or self._loop is not loop:
            # httpx connections belong to the event loop that opened them.
            self._async_client, self._loop = httpx.AsyncClient(**self._options), loop
        body = self._body([(question, steps)], truncate)
        for attempt in range(self.max_retries + 1):
            try:
                response, failure = await self._async_client.post(self.endpoint, json=body), None
            except httpx.TransportError as error:
                response, failure = None, error
            if not self._must_retry(response, failure, attempt):
                break
            await asyncio.sleep(_wait(response, attempt))
        return _parse(response, [(question, steps)], usage)[0].step_rewards

    def reset_prefix_cache(self) -> None:
        """Not possible from here: whoever updates a server's weights resets its caches."""
        raise ValueError("a scorer over a url has no cache to reset; reset the server where its weights are updated")

    def shutdown(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None
        self._async_client = self._loop = None

    def _body(self, pairs: Sequence[tuple[Question, Sequence[str]]], truncate: bool) -> dict[str, Any]:
        data = []
        for question, steps in pairs:
            if isinstance(steps, str):
                raise ValueError("steps must be a list of texts, got one text; split it into steps first")
            asked = {"question": question} if isinstance(question, str) else {"messages": list(question)}
            data.append({**asked, "steps": list(steps)})
        body: dict[str, Any] = {"data": data, "truncate": truncate}
        return body if self.model is None else {**body, "model": self.model}

    def _must_retry(self, response: httpx.Response | None, failure: Exception | None, attempt: int) -> bool:
        if response is not None and response.status_code not in RETRIED_STATUSES:
            return False
        if attempt < self.max_retries:
            return True
        reason = f"HTTP {response.status_code}" if response is not None else repr(failure)
        raise ServiceUnavailableError(f"{self.endpoint} gave {reason} in {attempt + 1} attempts") from failure


def _wait(response: httpx.Response | None, attempt: int) -> float:
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    if asked.isdigit():
        return min(float(asked), LONGEST_WAIT_S)
    return min(0.5 * 2**attempt, LONGEST_WAIT_S) * random.uniform(0.5, 1.0)


def _parse(
    response: httpx.Response, pairs: Sequence[tuple[Question, Sequence[str]]], usage: Any
) -> list[StepRewards | CritiquedStepRewards]:
    if response.status_code != 200:
        raise _error(response)
    answer = StepRewardResponse.model_validate_json(response.content)
    got, expected = [len(entry.step_rewards) for entry in answer.data], [len(steps) for _, steps in pairs]
    if got != expected:
        raise StepScoringError(f"step rewards must align with steps: the server sent {got}, expected {expected}")
    usage.add(
        requests=len(pairs),
        steps=sum(expected),
        **({} if answer.usage is None else answer.usage.model_dump()),
    )
    return answer.data


def _error(response: httpx.Response) -> Exception:
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        error = response.text[:500]
    kind, message = (error.get("type"), error.get("message")) if isinstance(error, dict) else (None, error)
    status = response.status_code
    text = f"{response.request.url} answered HTTP {status}: {message}"
    if status in (401, 403):
        return AuthenticationError(text)
    if kind == ContextLengthError.__name__:
        return ContextLengthError(text)
    return ValueError(text) if status in (400, 413, 422) else StepScoringError(text)
