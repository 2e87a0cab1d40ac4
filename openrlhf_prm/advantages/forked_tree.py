"""Responses that fork on purpose, all of them trained on (SPO-tree, arXiv:2505.23564; TreeRL, arXiv:2506.11902)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.advantages.estimator import AdvantageEstimator, EstimatorNeed, StepBatch
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ForkedTree(AdvantageEstimator):
    """A = (mean outcome of the responses below a node) - (mean outcome of those below its siblings), on the tokens
    between the fork before the node and its own.

    `branching` "4x2": four responses to the question, each of which forks after `fork_steps` steps into two; "2x2x2"
    forks again after as many steps. Their product is the group, and every one is a response that is trained on. Below a
    node stand fresh continuations of one state, so the first mean is an unbiased value of what was written there and
    the second one of the state before, independent of it. A segment is trained on as often as responses share it, which
    weighs it by the chance of its state: the expected gradient is exactly the outcome's. A response that ends before
    its fork stands for all that would have come of it.

    Forks cost the tokens behind them only. Credit is as fine as the tree, and a segment near the leaves is compared
    with few others; `tree` finds what unforced responses share, `vine` values every state and trains on none of it.

    SPO-tree compares a node with its parent, whose value holds the node's own: (b - 1) / b of this for b siblings. It
    forks after a number of tokens instead of steps, and trains on each segment once, so that later ones weigh more.
    TreeRL forks where the policy is least sure and adds what the state is worth against the question; both tie what is
    compared to what was written, and neither is offered.
    """

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset({EstimatorNeed.GROUP, EstimatorNeed.FORKS})
    branching: str = option(
        "4x2", "responses to the question and children of each fork; the product is --rollout.n_samples_per_prompt"
    )
    fork_steps: int = option(1, "steps from one fork to the next", least=1)

    def __post_init__(self):
        super().__post_init__()
        if not re.fullmatch(r"\d+(x\d+)+", self.branching) or min(self.factors) < 2:
            raise ValueError(f"branching must be numbers of at least 2 such as 4x2 or 2x2x2, got {self.branching!r}")

    @property
    def factors(self) -> tuple[int, ...]:
        """Responses to the question, then children of each fork."""
        return tuple(map(int, self.branching.split("x")))

    @property
    def unbiased(self) -> bool:
        return True

    def parent(self, place: int) -> tuple[int, int] | None:
        """Of a response by its place in the group: the fork (1 for the first) at which it leaves another one's path,
        and that one's place; None for those that begin at the question.
        """
        size = math.prod(self.factors)
        left = None
        for fork, factor in enumerate(self.factors):
            size //= factor
            if place // size % factor:
                left = (fork, place - place // size % factor * size)
        return left if left and left[0] else None

    def fork_ends(self, step_ends: Sequence[int], inherited: Sequence[int]) -> list[int]:
        """Token counts at which a response forks, behind those that it has from the one it left. step_ends: of the
        whole response. A response has no fork at its end.
        """
        ends = list(inherited)
        later = [end for end in step_ends[:-1] if not ends or end > ends[-1]]
        return [*ends, *later[self.fork_steps - 1 :: self.fork_steps]][: len(self.factors) - 1]

    def __call__(self, batch: StepBatch) -> list[torch.Tensor]:
        """B tensors (T_b,) of advantages. Raises ValueError for groups of another size than the tree's."""
        advantages = []
        for places in batch.groups:
            if len(places) != math.prod(self.factors):
                raise ValueError(f"{len(places)} responses are no tree of {self.branching}")
            outcomes = batch.outcome_rewards[list(places)]
            for row, place in enumerate(places):
                length = int(batch.step_ends[place][-1]) if len(batch.step_ends[place]) else 0
                values, size, before = outcomes.new_zeros(length), len(places), 0
                for factor, end in zip(self.factors, [*batch.fork_ends[place], length], strict=False):
                    siblings = slice(row // size * size, row // size * size + size)
                    rivals = size - size // factor
                    size //= factor
                    own = outcomes[row // size * size :][:size].sum()
                    values[before:end] = own / size - (outcomes[siblings].sum() - own) / rivals
                    before = end
                advantages.append(values)
        return advantages
