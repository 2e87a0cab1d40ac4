"""DAPO's soft overlong punishment (arXiv:2503.14476, equation 13)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.length_penalties.batch import LengthBatch

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Overlong:
    """0 up to max_tokens - buffer, falling linearly to -1 at max_tokens, -1 beyond. Right and wrong responses alike.

    `max_tokens` and `buffer` in tokens, 0 < buffer <= max_tokens. The host's own `--reward.overlong_buffer_len` does
    the same from the generation limit; this one lets the limit be lower than what may be generated.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    max_tokens: int = 1024
    buffer: int = 256

    def __post_init__(self):
        if not 0 < self.buffer <= self.max_tokens:
            raise ValueError(
                f"--length_penalty.buffer must lie in 1..max_tokens ({self.max_tokens}), got {self.buffer}"
            )

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        start = self.max_tokens - self.buffer
        return -((batch.lengths.float() - start) / self.buffer).clamp(0.0, 1.0)
