"""DAPO's soft overlong punishment (arXiv:2503.14476, equation 13)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrlhf_prm.length_penalties.penalty import LengthBatch, LengthPenalty
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Overlong(LengthPenalty):
    """0 up to max_tokens - buffer, falling linearly to -1 at max_tokens, -1 beyond. Right and wrong responses alike.

    `max_tokens` and `buffer` in tokens, 0 < buffer <= max_tokens; in a run they are the generation limit and a quarter
    of it, at most 256, where they are not given. The host's own `--reward.overlong_buffer_len` does
    the same from the generation limit; this one lets the limit be lower than what may be generated.
    """

    max_tokens: int = option(1024, "tokens from which the penalty is whole; a run's default is its generation limit")
    buffer: int = option(256, "tokens before max_tokens over which the penalty rises")

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.buffer <= self.max_tokens:
            raise ValueError(f"buffer must lie in 1..max_tokens ({self.max_tokens}), got {self.buffer}")

    @classmethod
    def fitted(cls, limit: int) -> dict[str, object]:
        return {"max_tokens": limit, "buffer": max(min(256, limit // 4), 1)}

    def conflict(self, limit: int, samples: int) -> str | None:
        if self.max_tokens <= limit:
            return None
        return f"max_tokens {self.max_tokens} is more than the {limit} tokens that a response may have"

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        start = self.max_tokens - self.buffer
        return -((batch.lengths.float() - start) / self.buffer).clamp(0.0, 1.0)
