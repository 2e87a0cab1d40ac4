"""Planted chains: an engine that simulates a policy whose first error is known, for the search itself without a model.

A solution has `steps` steps. Each goes wrong with the same chance, so that a whole solution is right with chance
`accuracy`; after an error the answer is wrong, unless the policy recovers, which a continuation from there does with
chance `recovery`. From a good prefix with k steps to go the answer is therefore right with chance a^k + (1 - a^k) *
recovery, a = accuracy^(1/steps). Every step has words of its own, as in a real model's samples, so that rollouts share
no step by chance; it is written in `step_tokens` tokens, each one character.
"""

import random
from collections.abc import Sequence

from openrlhf_prm.cluster.workers import Completion

EOS = 0
GOOD, BAD, WORDS = "+", "-", "abcdefghijklmnopqrstuvwxyz"


class Lines:
    """The tokenizer of a planted chain: one token a character; 0 ends a response."""

    def __call__(self, text: str, add_special_tokens: bool) -> dict:
        return {"input_ids": [ord(character) for character in text]}

    def decode(self, token_ids: Sequence[int], **_) -> str:
        return "".join(chr(token) for token in token_ids if token != EOS)


class PlantedEngine:
    """Samples responses of planted chains (`openrlhf_prm.annotation.rollouts`: engine)."""

    def __init__(
        self, rng: random.Random, *, steps: int, accuracy: float, recovery: float = 0.0, step_tokens: int = 10
    ):
        self.rng = rng
        self.steps = steps
        self.step_accuracy = accuracy ** (1 / steps)
        self.recovery = recovery
        self.step_tokens = step_tokens

    async def generate(self, prompt: list[int], *, n: int, max_tokens: int, **_) -> list[Completion]:
        """n continuations of a question (its last line break ends the prompt) or of a prefix of a response."""
        lines = "".join(map(chr, prompt)).split("\n")[1:-1]
        return [self._continue(lines) for _ in range(n)]

    def _continue(self, lines: Sequence[str]) -> Completion:
        written = []
        wrong = any(line.startswith(BAD) for line in lines)
        for _ in range(self.steps - len(lines)):
            wrong = wrong or self.rng.random() >= self.step_accuracy
            filling = "".join(self.rng.choices(WORDS, k=self.step_tokens - 2))
            written.append((BAD if wrong else GOOD) + filling)
        right = not wrong or self.rng.random() < self.recovery
        written[-1] += "=right" if right else "=wrong"
        text = "\n".join(written)
        return Completion(text, [*map(ord, text), EOS], False)


def is_right(response: str, label: str) -> bool:
    """Whether the planted response reached the right answer."""
    return response.endswith(f"={label}")


def exact_labels(steps: Sequence[str]) -> list[int]:
    """1 before the planted first error, 0 from it on."""
    return [int(step.startswith(GOOD)) for step in steps]
