"""Min form: a response is as good as its worst step (PURE, arXiv:2504.15275)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class MinForm:
    """r*_k = softmax_k(-r / temperature) * r_k, so the return is about min_k r_k up to the worst step and about 0
    after it.

    Adding good steps gains nothing. `temperature` > 0: towards 0 the whole reward lies on the worst step, for large
    ones it is spread evenly (r_k / S). Equal scores share the reward equally; one step keeps its score; no step gives
    an empty tensor.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    temperature: float = 0.1

    def __post_init__(self):
        if not self.temperature > 0:
            raise ValueError(f"--process_reward.temperature must be above 0, got {self.temperature}")

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        return (-scores / self.temperature).softmax(-1) * scores
