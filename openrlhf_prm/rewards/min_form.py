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

    `strict` is the form without a temperature: r*_k = min(r_k - G_{k+1}, 0), r*_S = r_S, so that with
    `--algo.advantage.lambd` 1 the return from step k is G_k = min_{l >= k} r_l, a running minimum. The authors' code
    takes it over tokens, where those between the ends of steps have 0: returns before the last token are at most 0.
    Here only steps count.
    """

    temperature: float = option(0.1, "how sharply the worst step is picked out", above=0)
    strict: bool = option(False, "the return of a step is the worst score from there on, without a temperature")

    def unread(self, prefix: str) -> dict[str, str]:
        return super().unread(prefix) | ({"temperature": f"no --{prefix}.strict"} if self.strict else {})

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        if self.strict:
            rewards = scores.clone()
            later = scores.flip(0).cummin(0).values.flip(0)[1:]
            rewards[:-1] = (scores[:-1] - later).clamp(max=0.0)
            return rewards
        return (-scores / self.temperature).softmax(-1) * scores
