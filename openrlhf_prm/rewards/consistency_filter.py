"""Consistency filter: the PRM chooses samples and stays out of the loss (PROF, arXiv:2509.03403)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.options import option
from openrlhf_prm.rewards.shaping import RewardShaping, ShapingNeed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ConsistencyFilter(RewardShaping):
    """Leaves out the responses on which PRM and outcome disagree most: correct ones with the lowest mean step score,
    wrong ones with the highest. Process rewards of the kept ones are 0. Baselines, deviations and the loss's means are
    those of the kept responses alone, as if no others had been sampled.

    Of G responses round(G * keep) are kept, at least 1. With n+ correct and n- wrong ones and D to drop, the surplus
    of the larger side goes first and the rest is shared equally: the correct side loses (D + n+ - n-) / 2, rounded
    down and kept within 0..n+ and D-n-..D, so that right and wrong responses end up balanced, as the paper asks. A
    group that is all right or all wrong loses its least consistent ones; ties are dropped in order. A group of one, or
    `keep` 1, drops nothing. The paper samples more than it keeps; so does
    `--rollout.n_samples_per_prompt` 8 with `keep` 0.5.

    `min_steps` and `max_steps`: responses with fewer or more steps are the first of their side to go (the authors'
    scripts: 2 and 30). `judged` "right" is the paper's Filter-Correct, for a PRM that is not trusted: of the wrong
    ones any go, here the first, which is as good as a draw because responses of a group are exchangeable. A response
    without a score is the least consistent of the right ones and the most consistent of the wrong.
    """

    needs: ClassVar[frozenset[ShapingNeed]] = frozenset({ShapingNeed.GROUP})
    pays: ClassVar[bool] = False
    keep: float = option(0.5, "share of a question's responses that are trained on", above=0, most=1)
    min_steps: int = option(0, "responses with fewer steps go first", least=0)
    max_steps: int = option(0, "responses with more steps go first; 0: no limit", least=0)
    judged: str = option("both", "whose scores choose what goes", choices=("both", "right"))

    def conflict(self, samples: int) -> str | None:
        if max(1, round(samples * self.keep)) < samples:
            return None
        return f"keep {self.keep:g} drops nothing of --rollout.n_samples_per_prompt {samples}"

    def __call__(self, scores: list[torch.Tensor], correct: torch.Tensor) -> list[torch.Tensor | None]:
        right = [index for index, verdict in enumerate(correct) if verdict]
        wrong = [index for index, verdict in enumerate(correct) if not verdict]
        drop = len(scores) - max(1, round(len(scores) * self.keep))
        from_right = (drop + len(right) - len(wrong)) // 2
        from_right = min(max(from_right, 0, drop - len(wrong)), len(right), drop)
        dropped = sorted(right, key=lambda index: self._rank(scores[index], 1.0))[:from_right]
        sign = -1.0 if self.judged == "both" else 0.0
        dropped += sorted(wrong, key=lambda index: self._rank(scores[index], sign))[: drop - from_right]
        return [None if index in dropped else steps * 0 for index, steps in enumerate(scores)]

    def _rank(self, steps: torch.Tensor, sign: float) -> tuple[bool, float]:
        """What goes first sorts first. sign: of the mean score in the order, 0 where it does not count."""
        fits = len(steps) >= self.min_steps and (not self.max_steps or len(steps) <= self.max_steps)
        scored = steps[~steps.isnan()]
        mean = float(scored.mean()) if len(scored) else -math.inf
        return fits, sign * mean if sign else 0.0
