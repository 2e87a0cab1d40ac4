"""Consistency filter: the PRM chooses samples and stays out of the loss (PROF, arXiv:2509.03403)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.options import option
from openrlhf_prm.rewards.shaping import RewardShaping, ShapingNeed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ConsistencyFilter(RewardShaping):
    """Leaves out the responses on which PRM and outcome disagree most: correct ones with the lowest mean step score,
    wrong ones with the highest. Process rewards of the kept ones are 0.

    Of G responses round(G * keep) are kept, at least 1. With n+ correct and n- wrong ones and D to drop, the surplus
    of the larger side goes first and the rest is shared equally: the correct side loses (D + n+ - n-) / 2, rounded
    down and kept within 0..n+ and D-n-..D, so that right and wrong responses end up balanced, as the paper asks. A
    group that is all right or all wrong loses its least consistent ones; ties are dropped in order. A group of one, or
    `keep` 1, drops nothing. The paper samples more than it keeps; so does
    `--rollout.n_samples_per_prompt` 8 with `keep` 0.5.
    """

    needs: ClassVar[frozenset[ShapingNeed]] = frozenset({ShapingNeed.GROUP})
    keep: float = option(0.5, "share of a question's responses that are trained on", above=0, most=1)

    def __call__(self, scores: list[torch.Tensor], correct: torch.Tensor) -> list[torch.Tensor | None]:
        right = [index for index, verdict in enumerate(correct) if verdict]
        wrong = [index for index, verdict in enumerate(correct) if not verdict]
        means = [float(steps.mean()) if len(steps) else 0.0 for steps in scores]
        drop = len(scores) - max(1, round(len(scores) * self.keep))
        from_right = (drop + len(right) - len(wrong)) // 2
        from_right = min(max(from_right, 0, drop - len(wrong)), len(right), drop)
        dropped = sorted(right, key=means.__getitem__)[:from_right]
        dropped += sorted(wrong, key=lambda index: -means[index])[: drop - from_right]
        return [None if index in dropped else steps * 0 for index, steps in enumerate(scores)]
