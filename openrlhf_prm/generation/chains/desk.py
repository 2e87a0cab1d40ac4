"""The desk at which one question is worked on: who is asked, with which seed, and what it costs."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from openrlhf_prm.generation.chains.asking import Answer, Model, Unanswered
from openrlhf_prm.generation.chains.draft import Event, NoChain
from openrlhf_prm.generation.chains.roles import RoleBook, filled

SEEDS = 2**31


@dataclass(frozen=True, kw_only=True)
class Cast:
    """The roles, and the model of each name. `states_answer`: whether a text states a final answer. `max_calls`: how
    often roles may be asked for one question.
    """

    book: RoleBook
    models: Mapping[str, Model]
    states_answer: Callable[[str], bool]
    seed: int = 0
    max_calls: int = 200


class Desk:
    """One question. `is_right` tells whether a response is; the reference answer itself never gets here, so that no
    prompt can contain it.

    A call's seed is a hash of the run's seed, the question's id, the role, the node and the attempt: it is the same in
    whatever order questions are worked on.
    """

    def __init__(self, cast: Cast, identity: str, question: str, is_right: Callable[[str], bool]):
        self.cast, self.identity, self.question = cast, identity, question
        self.events: list[Event] = []
        self.values: dict[tuple[str, ...], float] = {}
        """What critics know of the steps so far, by their texts."""
        self.calls = 0
        self._is_right = is_right

    async def ask(self, role: str, node: int, attempt: int, **values: str) -> tuple[Answer, Event]:
        """What the role answers, and the event that says so. Raises NoChain where it cannot be asked."""
        if self.calls >= self.cast.max_calls:
            raise NoChain("too_many_calls")
        self.calls += 1
        one, seed = self.cast.book.roles[role], self._hash(role, node, attempt) % SEEDS
        prompt = filled(one.prompt, {"question": self.question, **values})
        event = Event(role=role, node=node, attempt=attempt, seed=seed)
        self.events.append(event)  # now, so that calls made together stand in the order of their making
        try:
            answer = await self.cast.models[one.model].answer(one, one.system, prompt, seed)
        except Unanswered as error:
            event.verdict, event.text = error.reason, str(error)[:300]
            raise NoChain(error.reason) from error
        event.text, event.tokens, event.prompt_tokens = answer.text, answer.tokens, answer.prompt_tokens
        return answer, event

    async def is_right(self, response: str) -> bool:
        """Whether the response has the right answer; judged in a thread, because a checker may take its time."""
        return bool(await asyncio.to_thread(self._is_right, response))

    def phrase(self, name: str, place: Any, value: str = "") -> str:
        """One of the phrases of this name, chosen by the question and the place. `value`: for its placeholder."""
        texts = self.cast.book.phrases[name]
        text = texts[self._hash("phrase", name, place) % len(texts)]
        return filled(text, dict.fromkeys(("plan", "reason", "step"), value)).strip()

    def _hash(self, *what: Any) -> int:
        named = "\0".join(map(str, (self.cast.seed, self.identity, *what)))
        return int.from_bytes(hashlib.sha256(named.encode()).digest()[:8], "big")


async def together(calls: list[Awaitable]) -> list:
    """The results of calls made at the same time. The first error, in the order of the calls, is raised when all are
    done: what was asked, and what it cost, does not depend on who was faster.
    """
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
