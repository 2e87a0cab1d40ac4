"""What a length penalty sees. Shapes: B responses, G responses per question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LengthBatch:
    """A rollout batch in question order: the G responses of a question stand together, so B is a multiple of G.

    lengths: (B,) tokens. correct: (B,) bool. token_ids: the responses' tokens. targets: (B,) tokens asked for in the
    prompt. questions: B prompts. state: what the penalty keeps from batch to batch, plain numbers and dicts; empty
    before the first batch. These four are there where the penalty `needs` them. warm_up: 0..1, how far the penalty is
    switched on.
    """

    lengths: torch.Tensor
    correct: torch.Tensor
    group_size: int
    token_ids: Sequence[Sequence[int]] | None = None
    targets: torch.Tensor | None = None
    questions: Sequence[str] | None = None
    state: dict = field(default_factory=dict)
    warm_up: float = 1.0

    def __post_init__(self):
        if len(self.lengths) != len(self.correct):
            raise ValueError(f"{len(self.lengths)} lengths must align with {len(self.correct)} verdicts")
        if self.group_size < 1 or len(self.lengths) % self.group_size:
            raise ValueError(f"{len(self.lengths)} responses do not form groups of {self.group_size}")
