"""Length controlled by the prompt: L1 / LCPO (arXiv:2503.04697).

The target n* of each question is drawn once, uniformly from `target_min`..`target_max`, and stated in the prompt by
`target_template`, whose {} it fills; `openrlhf_prm.length_penalties.targets` writes it and reads it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.length_penalties.batch import LengthBatch

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class _Targets:
    needs: ClassVar[frozenset[str]] = frozenset({"targets"})
    alpha: float = 0.0003
    target_min: int = 100
    target_max: int = 4000
    target_template: str = "Think for {} tokens."

    def __post_init__(self):
        if not self.alpha > 0:
            raise ValueError(f"--length_penalty.alpha must be above 0, got {self.alpha}")
        if not 0 < self.target_min <= self.target_max:
            raise ValueError(
                f"--length_penalty.target_min must lie in 1..target_max ({self.target_max}), got {self.target_min}"
            )
        if self.target_template.count("{}") != 1:
            raise ValueError(f"--length_penalty.target_template needs {{}} once, got {self.target_template!r}")

    def _short_by(self, batch: LengthBatch) -> torch.Tensor:
        return batch.targets.float() - batch.lengths.float()


@dataclass(frozen=True, kw_only=True)
class LCPOExact(_Targets):
    """-alpha * |n* - length|, for right and wrong responses alike: outcome plus this is the paper's LCPO-Exact."""

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        return -self.alpha * self._short_by(batch).abs()


@dataclass(frozen=True, kw_only=True)
class LCPOMax(_Targets):
    """Correct: clip(alpha * (n* - length) + 0.5, 0, 1) - 1; wrong: 0. Outcome plus this is the paper's LCPO-Max.

    Half of the reward at exactly n*, all of it when 0.5 / alpha tokens shorter, none when as many longer. The paper
    names the same alpha for both forms as far as could be found.
    """

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        return ((self.alpha * self._short_by(batch) + 0.5).clamp(0.0, 1.0) - 1) * batch.correct
