"""Min form: a response is as good as its worst step (PURE, arXiv:2504.15275)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrlhf_prm.options import option
from openrlhf_prm.rewards.shaping import RewardShaping

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class MinForm(RewardShaping):
    """r*_k = softmax_k(-r / temperature) * r_k, so the return is about min_k r_k up to the worst step and about 0
    after it.

    Adding good steps gains nothing. `temperature` > 0: towards 0 the whole reward lies on the worst step, for large
    ones it is spread evenly (r_k / S). Equal scores share the reward equally; one step keeps its score; no step gives
    an empty tensor.
    """

    temperature: float = option(0.1, "how sharply the worst step is picked out", above=0)

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        return (-scores / self.temperature).softmax(-1) * scores
