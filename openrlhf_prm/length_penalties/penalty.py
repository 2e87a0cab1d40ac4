"""What a length penalty is, what it may need, and the batch it sees. Shapes: B responses, G responses per question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.options import Options

if TYPE_CHECKING:
    import torch


class PenaltyNeed(Enum):
    """What a penalty reads beside lengths and correctness; its value: the fields of `LengthBatch` that hold it."""

    GROUP = ("group_size",)
    """Several responses per question, to be compared."""
    TOKENS = ("token_ids",)
    TARGETS = ("targets",)
    """Of a `lcpo.TargetPenalty`: prompts state a target length."""
    QUESTIONS = ("questions", "group_size")
    """What was asked, response by response, and which responses belong together, be it one alone."""
    STATE = ("state",)
    """A memory that lasts over batches and checkpoints."""


@dataclass(frozen=True, kw_only=True)
class LengthPenalty(Options):
    """Base of penalties: options as fields, `needs`, and a call from a `LengthBatch` to (B,) rewards."""

    needs: ClassVar[frozenset[PenaltyNeed]] = frozenset()
    pays: ClassVar[bool] = True
    """False where it chooses responses and penalises none."""

    @classmethod
    def fitted(cls, limit: int) -> dict[str, object]:
        """Defaults of a run whose responses have at most `limit` tokens, where they differ from the class's."""
        return {}

    def conflict(self, limit: int, samples: int) -> str | None:
        """What of its options has no effect where responses have at most `limit` tokens and a question so many samples,
        beginning with the option's name.
        """
        return None

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        raise NotImplementedError

    def kept(self, batch: LengthBatch) -> torch.Tensor | None:
        """(B,) bool, False for responses that training leaves out as if they had not been sampled; None: all stay."""
        return None


@dataclass(frozen=True, kw_only=True)
class LengthBatch:
    """A rollout batch in question order: the G responses of a question stand together, so B is a multiple of G.

    lengths: (B,) tokens. correct: (B,) bool. warm_up: 0..1, how far the penalty is switched on.

    The other fields are there where the penalty `needs` them, else None. group_size: G. token_ids: the responses'
    tokens. targets: (B,) tokens asked for in the prompt. questions: B prompts. state: what the penalty keeps from batch
    to batch, plain numbers and dicts; empty before the first batch.
    """

    lengths: torch.Tensor
    correct: torch.Tensor
    warm_up: float = 1.0
    group_size: int | None = None
    token_ids: Sequence[Sequence[int]] | None = None
    targets: torch.Tensor | None = None
    questions: Sequence[str] | None = None
    state: dict | None = None

    def __post_init__(self):
        if len(self.lengths) != len(self.correct):
            raise ValueError(f"{len(self.lengths)} lengths must align with {len(self.correct)} verdicts")
        if self.group_size is not None and (self.group_size < 1 or len(self.lengths) % self.group_size):
            raise ValueError(f"{len(self.lengths)} responses do not form groups of {self.group_size}")
