"""First attempts of another policy, the base model usually, from a file: stage 2 may train corrections of these too."""

import random
from collections.abc import Callable
from contextvars import ContextVar

from openrlhf_prm.data.rows import read_jsonl

QUESTION_DRAW: ContextVar[float] = ContextVar("question_draw", default=1.0)
"""A number in [0, 1) that all episodes of a question have in common; 1 where nothing was drawn."""


def read_attempts(path: str) -> dict[str, list[str]]:
    """Question -> responses, of JSONL rows with both, such as `evaluate --eval.samples` writes.

    Raises ValueError naming file and line.
    """
    attempts: dict[str, list[str]] = {}
    for number, row in read_jsonl(path):
        for key in ("question", "response"):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise ValueError(f"{path} line {number}: {key!r} must be a text, got {row.get(key)!r}")
        attempts.setdefault(row["question"], []).append(row["response"])
    if not attempts:
        raise ValueError(f"{path} has no rows")
    return attempts


class OfflineAttempts:
    """Answers with a first attempt for as large a share of questions as asked, while `stage` is 2 and it is `wanted`:
    an evaluation asks for the policy's own.
    """

    def __init__(self, path: str, share: float, stage: int):
        self.path, self.share, self.stage = path, share, stage
        self.wanted = True
        self._by_prompt: dict[str, list[str]] | None = None

    def draw(self) -> None:
        """Once per question, before its episodes."""
        QUESTION_DRAW.set(random.random() if self.wanted else 1.0)

    def of(self, prompt: str, prompt_of: Callable[[str], str]) -> str | None:
        """A response of the file to this prompt; None where the policy is to write it. All episodes of a question have
        one or none has, so that second attempts are compared with such as read the same kind of first one.
        """
        if self.stage != 2 or QUESTION_DRAW.get() >= self.share:
            return None
        if self._by_prompt is None:
            self._by_prompt = {prompt_of(question): texts for question, texts in read_attempts(self.path).items()}
        texts = self._by_prompt.get(prompt)
        return random.choice(texts) if texts else None
