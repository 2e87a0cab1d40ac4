"""Client of `POST /v1/step_rewards`, synchronous and asynchronous, that outlasts a server's restart.

Asked again for as long as `patience` lasts: a connection that fails, and the statuses that say "later" (408, 429, 500,
502, 503, 504), after `Retry-After` or 0.5 s doubled each time, with jitter so that many rollout workers do not return
in step. Not asked again: everything the same request would meet again, and an answer that did not come within
`timeout`. What a server sends is measured while it arrives, and checked: an answer that is not what the protocol says
is an error, never a score.
"""

import asyncio
import json
import logging
import random
import re
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import httpx
from pydantic import ValidationError

from vllm_prm.api_keys import key_from
from vllm_prm.errors import AuthenticationError, ContextLengthError, ServiceUnavailableError, StepScoringError
from vllm_prm.families.prm_family import Question
from vllm_prm.protocol import CritiquedStepRewards, StepRewardResponse, StepRewards

logger = logging.getLogger(__name__)

RETRIED_STATUSES = {408, 429, 500, 502, 503, 504}
LONGEST_WAIT_S = 30.0
SAID_EVERY_S = 30.0

ANSWER_BYTES, STEP_BYTES = 1 << 20, 64
"""An answer may have so many bytes, and so many more for each step that was asked about."""


class HTTPService:
    """A step-reward server at `url` (with or without `/v1` at its end)."""

    def __init__(
        self,
        url: str,
        api_key_env: str | None = None,
        *,
        model: str | None = None,
        timeout: float = 120.0,
        patience: float = 300.0,
        max_connections: int = 256,
        items_per_request: int = 256,
    ) -> None:
        """`timeout`: seconds that one request may take, from its first byte to the last of its answer; a queued
        request waits inside it. `patience`: seconds that the server may be away or overloaded. `items_per_request`:
        solutions that `score` sends together, at most the server's --max-items. `ValueError` for an unusable url or
        number, or an `api_key_env` that names no variable."""
        if items_per_request < 1:
            raise ValueError(f"items_per_request must be 1 or more, got {items_per_request}")
        if timeout <= 0 or patience < 0:
            raise ValueError(f"timeout must be above 0 and patience at least 0, got {timeout} and {patience}")
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url must start with http:// or https://, got {url!r}")
        key = None if api_key_env is None else key_from(api_key_env)
        if api_key_env is not None and key is None:
            raise ValueError(f"api_key_env names the environment variable {api_key_env!r}, which is not set")
        self.endpoint = url.rstrip("/").removesuffix("/v1") + "/v1/step_rewards"
        self.model = model
        self.timeout, self.patience = timeout, patience
        self.items_per_request = items_per_request
        # Packed answers could unpack to any size; and scores are few bytes.
        headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._options: dict[str, Any] = {
            "timeout": httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            "limits": httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
            "headers": headers,
        }
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own_loop: asyncio.AbstractEventLoop | None = None

    def score(self, pairs: Sequence[tuple[Question, Sequence[str]]], truncate: bool, usage: Any) -> list[list]:
        """Scores per solution, in order; adds the server's token counts to `usage`."""
        return [entry.step_rewards for entry in self._wait_for(self._ask_all(pairs, truncate, usage))]

    def output_fields(self, pairs: Sequence[tuple[Question, Sequence[str]]], truncate: bool, usage: Any) -> list[dict]:
        """The same, with what the server says beside the scores: a generative PRM counts its critiques."""
        entries = self._wait_for(self._ask_all(pairs, truncate, usage))
        return [entry.model_dump(exclude={"index", "object", "score"}) for entry in entries]

    async def score_async(self, question: Question, steps: Sequence[str], truncate: bool, usage: Any) -> list:
        """Scores of one solution; adds the server's token counts to `usage`."""
        if not steps:
            return []
        return (await self._ask([(question, steps)], truncate, usage))[0].step_rewards

    def reset_prefix_cache(self) -> None:
        """Not possible from here: whoever updates a server's weights resets its caches."""
        raise ValueError("a scorer over a url has no cache to reset; reset the server where its weights are updated")

    def shutdown(self) -> None:
        """Close the connections of synchronous calls; others end with their event loop."""
        if self._own_loop is not None:
            if self._client is not None and self._loop is self._own_loop:
                self._wait_for(self._client.aclose())
            self._own_loop.call_soon_threadsafe(self._own_loop.stop)
        self._client = self._loop = self._own_loop = None

    def _wait_for(self, work: Coroutine) -> Any:
        """The result of `work`, done in an event loop of this object's own, whatever the caller's thread is in: only
        there has a request one time limit for all of it.
        """
        if self._own_loop is None:
            self._own_loop = asyncio.new_event_loop()
            threading.Thread(target=self._own_loop.run_forever, daemon=True, name="step-rewards").start()
        result = asyncio.run_coroutine_threadsafe(work, self._own_loop)
        try:
            return result.result()
        except BaseException:
            result.cancel()
            raise

    async def _ask_all(
        self, pairs: Sequence[tuple[Question, Sequence[str]]], truncate: bool, usage: Any
    ) -> list[StepRewards | CritiquedStepRewards]:
        answers: list[StepRewards | CritiquedStepRewards] = []
        for start in range(0, len(pairs), self.items_per_request):
            answers += await self._ask(pairs[start : start + self.items_per_request], truncate, usage)
        return answers

    async def _ask(
        self, pairs: Sequence[tuple[Question, Sequence[str]]], truncate: bool, usage: Any
    ) -> list[StepRewards | CritiquedStepRewards]:
        """One request, until it is answered or patience ends."""
        body = self._body(pairs, truncate)
        most = ANSWER_BYTES + STEP_BYTES * sum(len(steps) for _, steps in pairs)
        began, said, attempt = time.monotonic(), 0.0, 0
        while True:
            try:
                status, headers, content = await self._post(body, most)
                failure = None
            except (httpx.ReadTimeout, httpx.WriteTimeout, TimeoutError) as error:
                fault = f"{self.endpoint} has not answered within {self.timeout:g} s"
                raise ServiceUnavailableError(fault) from error
            except httpx.TransportError as error:
                status, headers, content, failure = None, {}, b"", error
            if status is not None and status not in RETRIED_STATUSES:
                return _parse(self.endpoint, status, content, pairs, truncate, usage)
            reason = repr(failure) if status is None else f"HTTP {status}"
            attempt += 1
            away = time.monotonic() - began
            pause = _wait(headers.get("Retry-After", ""), attempt - 1)
            if away + pause > self.patience:
                fault = f"{self.endpoint} gave {reason} in {attempt} attempts over {away:.0f} s"
                if content:
                    fault += f": {_message(content)[1]}"
                raise ServiceUnavailableError(fault) from failure
            if away >= said:
                logger.warning(
                    "%s gave %s; it is asked again, for another %.0f s", self.endpoint, reason, self.patience - away
                )
                said = away + SAID_EVERY_S
            await asyncio.sleep(pause)

    async def _post(self, body: dict, most: int) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and content of an answer of at most `most` bytes."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # httpx connections belong to the event loop that opened them.
            self._client, self._loop = httpx.AsyncClient(**self._options), loop
        content = bytearray()
        async with asyncio.timeout(self.timeout):
            async with self._client.stream("POST", self.endpoint, json=body) as response:
                if (encoding := response.headers.get("Content-Encoding", "identity")) != "identity":
                    raise StepScoringError(f"{self.endpoint} packed its answer ({encoding}), which was not asked for")
                async for piece in response.aiter_bytes():
                    content += piece
                    if len(content) > most:
                        raise StepScoringError(f"{self.endpoint} sends more than {most} bytes for an answer")
                return response.status_code, response.headers, bytes(content)

    def _body(self, pairs: Sequence[tuple[Question, Sequence[str]]], truncate: bool) -> dict[str, Any]:
        data = []
        for question, steps in pairs:
            if isinstance(steps, str):
                raise ValueError("steps must be a list of texts, got one text; split it into steps first")
            asked = {"question": question} if isinstance(question, str) else {"messages": list(question)}
            data.append({**asked, "steps": list(steps)})
        body: dict[str, Any] = {"data": data, "truncate": truncate}
        return body if self.model is None else {**body, "model": self.model}


def _wait(asked: str, attempt: int) -> float:
    """Seconds until the next attempt. asked: the server's Retry-After, which counts where it is a number of seconds."""
    if re.fullmatch(r"\d{1,9}(\.\d+)?", asked, re.ASCII):
        return min(float(asked), LONGEST_WAIT_S)
    return min(0.5 * 2 ** min(attempt, 10), LONGEST_WAIT_S) * random.uniform(0.5, 1.0)


def _parse(
    url: str, status: int, content: bytes, pairs: Sequence[tuple[Question, Sequence[str]]], truncate: bool, usage: Any
) -> list[StepRewards | CritiquedStepRewards]:
    if status != 200:
        raise _error(url, status, content)
    try:
        answer = StepRewardResponse.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StepScoringError(f"{url} did not answer with step rewards: {place}: {first['msg']}") from None
    indices = [entry.index for entry in answer.data]
    if indices != list(range(len(pairs))):
        raise StepScoringError(f"{url} answered for solutions {indices[:9]}, asked were {len(pairs)} in order")
    got, expected = [len(entry.step_rewards) for entry in answer.data], [len(steps) for _, steps in pairs]
    if got != expected:
        raise StepScoringError(f"{url}: step rewards must align with steps: the server sent {got}, expected {expected}")
    for number, entry in enumerate(answer.data):
        # A critic may give no verdict; else there is none only where the context ended, which `truncate` allows.
        if not truncate and None in entry.step_rewards and not isinstance(entry, CritiquedStepRewards):
            place = f"data.{number}.step_rewards.{entry.step_rewards.index(None)}"
            raise StepScoringError(
                f"{url} did not answer with step rewards: {place} is null, and nothing was to be cut"
            )
    usage.add(
        requests=len(pairs),
        steps=sum(expected),
        **({} if answer.usage is None else answer.usage.model_dump()),
    )
    return answer.data


def _message(content: bytes) -> tuple[str | None, Any]:
    """The kind and the message of a server's error."""
    try:
        error = json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        error = content[:500].decode(errors="replace")
    return (error.get("type"), error.get("message")) if isinstance(error, dict) else (None, error)


def _error(url: str, status: int, content: bytes) -> Exception:
    kind, message = _message(content)
    text = f"{url} answered HTTP {status}: {message}"
    if status in (401, 403):
        return AuthenticationError(text)
    if kind == ContextLengthError.__name__:
        return ContextLengthError(text)
    return ValueError(text) if status in (400, 413, 422) else StepScoringError(text)
