"""What a role asks and gets: one question, one answer. The models behind it: `models`."""

from dataclasses import dataclass
from typing import Protocol

from openrlhf_prm.generation.chains.roles import Role


class Unreachable(ValueError):
    """A server that does not answer when the run begins."""


class Unanswered(Exception):
    """A question of a role that no model can answer: it ends this chain, not the run. `reason`: for the count."""

    def __init__(self, reason: str, text: str):
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Answer:
    """What a model said, without what it thought before `</think>`; its tokens, those of the prompt, and whether it was
    cut at the token limit.
    """

    text: str
    tokens: int
    prompt_tokens: int
    truncated: bool


class Model(Protocol):
    """What roles speak through."""

    async def ready(self) -> None:
        """Returns when it can be asked. Raises Unreachable."""

    async def answer(self, role: Role, system: str, prompt: str, seed: int) -> Answer:
        """Raises Unanswered, and what ends the run."""
