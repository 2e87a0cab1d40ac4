"""The models behind the roles: vLLM engines in Ray actors, and OpenAI-compatible servers."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from openrlhf_prm.annotation.scheduler import EngineLost
from openrlhf_prm.annotation.url_engine import API_KEY, RefusedRequest, UrlEngine
from openrlhf_prm.cluster.workers import UnfinishedCompletion, was_cut
from openrlhf_prm.generation.chains.asking import Answer, Unanswered, Unreachable
from openrlhf_prm.generation.chains.roles import Role

logger = logging.getLogger(__name__)

PAUSE_S = 0.5
"""Before servers that are away are asked again; twice as long each time, 30 s at most."""


def spoken(text: str) -> str:
    """The text after a thinking model's thoughts; "" where they did not end."""
    before, closed, after = text.rpartition("</think>")
    if closed:
        return after.strip()
    return "" if "<think>" in before + after else text.strip()


class Rendering:
    """System message and prompt -> the text that a model of a tokenizer reads.

    A chat template that knows no system role, because it refuses one or drops it, gets the system message in front of
    the user's. Without a chat template both are plain text, an empty line between them.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.has_template = bool(getattr(tokenizer, "chat_template", None))
        self.has_system = self.has_template and self._takes_system()

    def __call__(self, form: str, system: str, prompt: str) -> str:
        if form == "text":
            return prompt
        joined = "\n\n".join(part for part in (system, prompt) if part)
        if not self.has_template:
            return joined
        if self.has_system and system:
            return self._chat([{"role": "system", "content": system}, {"role": "user", "content": prompt}])
        return self._chat([{"role": "user", "content": joined}])

    def said(self) -> str | None:
        """What a user should know of this model's prompts."""
        if not self.has_template:
            return "has no chat template: roles of form chat are plain text, the system message in front of the prompt"
        return None if self.has_system else "has a chat template without a system role: its text goes to the user's"

    def _takes_system(self) -> bool:
        from jinja2 import TemplateError

        mark = "SYSTEM-7f3a"
        try:
            return mark in self._chat([{"role": "system", "content": mark}, {"role": "user", "content": "x"}])
        except TemplateError:
            return False

    def _chat(self, messages: list[dict]) -> str:
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


class LocalModel:
    """Engines of our own. `pool` has `async generate(token ids, **sampling)`; `context`: tokens of a prompt and its
    answer together, None where that is not known.
    """

    def __init__(self, pool: Any, tokenizer: Any, context: int | None):
        self.pool, self.tokenizer, self.context = pool, tokenizer, context
        self.render = Rendering(tokenizer)

    async def ready(self) -> None:
        """At once: a pool's engines have started."""

    async def answer(self, role: Role, system: str, prompt: str, seed: int) -> Answer:
        """An answer gets what the prompt leaves of the context. Raises Unanswered where that is nothing."""
        text = self.render(role.form, system, prompt)
        tokens = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        sampling = role.sampling(seed)
        if self.context is not None:
            # vLLM keeps one token of the context for itself.
            sampling["max_tokens"] = min(role.max_tokens, self.context - 1 - len(tokens))
        if sampling["max_tokens"] < 1 or not tokens:
            raise Unanswered("context_full", f"a prompt of {len(tokens)} tokens, the context is {self.context}")
        [one] = await self.pool.generate(tokens, **sampling)
        return Answer(spoken(one.text), len(one.token_ids), len(tokens), one.truncated)


class ChatServer(UrlEngine):
    """A server's chat and text completions. `name`: of the model, where the server has several."""

    def __init__(self, url: str, patience_s: float, name: str | None = None, api_key_env: str | None = None, **options):
        super().__init__(url, None, patience_s, api_key_env=api_key_env or API_KEY, **options)
        self.name = name

    async def answer(self, role: Role, system: str, prompt: str, seed: int) -> Answer:
        """Raises EngineLost where the server is away, RuntimeError where the run is at fault."""
        body: dict[str, Any] = {"model": self.name or self.model, **role.sampling(seed)}
        if role.form == "text":
            said = await self._request("POST", "/v1/completions", json={**body, "prompt": prompt})
        else:
            first = [{"role": "system", "content": system}] if system else []
            body["messages"] = [*first, {"role": "user", "content": prompt}]
            said = await self._request("POST", "/v1/chat/completions", json=body)
        try:
            choice = said["choices"][0]
            text = choice["text"] if role.form == "text" else choice["message"]["content"]
            cut, usage = was_cut(choice["finish_reason"]), said["usage"]
            counts = int(usage["completion_tokens"]), int(usage["prompt_tokens"])
        except (KeyError, IndexError, TypeError) as error:
            raise RuntimeError(f"{self.url} sent no completion with its usage: {str(said)[:200]}") from error
        except UnfinishedCompletion as error:
            raise Unanswered("unfinished", str(error)) from error
        return Answer(spoken(text or ""), *counts, cut)


class ServedModel:
    """Servers of one model, the least busy one asked; where all are away or overloaded they are asked again."""

    def __init__(self, servers: Sequence[ChatServer], patience_s: float):
        self.servers, self.patience_s = list(servers), patience_s
        self.in_flight = [0] * len(self.servers)

    async def ready(self) -> None:
        """Returns when every server answers. Raises Unreachable naming one that does not."""
        try:
            await asyncio.gather(*(server.ready() for server in self.servers))
        except RuntimeError as error:
            raise Unreachable(str(error)) from error

    async def answer(self, role: Role, system: str, prompt: str, seed: int) -> Answer:
        """Raises Unanswered where a server refuses this request, RuntimeError where none is there for it."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self.patience_s, PAUSE_S
        while True:
            index = min(range(len(self.servers)), key=self.in_flight.__getitem__)
            self.in_flight[index] += 1
            try:
                return await self.servers[index].answer(role, system, prompt, seed)
            except EngineLost as error:
                if loop.time() + pause >= deadline:
                    raise RuntimeError(f"no answer for {self.patience_s:g} s: {error}") from error
                logger.warning("%s; asked again", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, 30.0)
            except RefusedRequest as error:
                raise Unanswered("refused", str(error)) from error
            finally:
                self.in_flight[index] -= 1
