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

    `branching` "4x2": four responses to the question, each of which forks after `fork_every` steps into two; "2x2x2"
    forks again after as many steps. Their product is the group, and every one is a response that is trained on. Below a
    node stand fresh continuations of one state, so the first mean is an unbiased value of what was written there and
    the second one of the state before, independent of it. A segment is trained on as often as responses share it, which
    weighs it by the chance of its state: the expected gradient is exactly the outcome's. A response that ends before
    its fork stands for all that would have come of it.

    Forks cost the tokens behind them only. Credit is as fine as the tree, and a segment near the leaves is compared
    with few others; `tree` finds what unforced responses share, `vine` values every state and trains on none of it.

    `fork_at` has the two published places as well. "tokens": after `fork_every` tokens, as SPO-tree. "unsure": before
    the tokens that a response gave the least probability, of those that it wrote itself behind its first one, so many
    as the tree has levels left, as TreeRL; it is biased, because the place depends on how the response went on. The
    authors choose among the whole tree's tokens in rounds, and none behind the words "answer" and "conclusion".

    `baseline` has the two published forms as well, both biased, because what is compared then holds what was written;
    V is the mean outcome below a node, L the number of responses there:

    - "spo_tree": (V - V(parent)) / L. Each segment counts once however many responses share it, as in the authors'
      program, which trains on segments as samples of their own; so later ones weigh more.
    - "treerl": ((V - V(root)) + (V - V(parent))) / sqrt(L). What a node is worth against the question, and what its
      segment changed. The authors' program differs from the paper: it divides each V by its own node's sqrt(L),
      multiplies outcomes less their mean by n / (n - 1), and takes a mean over tokens off.
    """

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset({EstimatorNeed.GROUP, EstimatorNeed.FORKS})
    branching: str = option(
        "4x2", "responses to the question and children of each fork; the product is --rollout.n_samples_per_prompt"
    )
    fork_at: str = option(
        "steps", "where responses fork: after steps, after tokens, or before the tokens of least probability",
        choices=("steps", "tokens", "unsure"),
    )  # fmt: skip
    fork_every: int = option(1, "steps, or tokens, from one fork to the next", least=1)
    baseline: str = option(
        "siblings", "what a node is compared with: its siblings, or as two papers do it",
        choices=("siblings", "spo_tree", "treerl"),
    )  # fmt: skip

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
        return self.baseline == "siblings" and self.fork_at != "unsure"

    @property
    def reads_probabilities(self) -> bool:
        return self.fork_at == "unsure"

    def unread(self, prefix: str) -> dict[str, str]:
        of_places = {"fork_every": f"--{prefix}.fork_at steps or tokens"} if self.fork_at == "unsure" else {}
        return super().unread(prefix) | of_places

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

    def fork_ends(
        self, step_ends: Sequence[int], inherited: Sequence[int], probabilities: Sequence[float] = ()
    ) -> list[int]:
        """Token counts at which a response forks, behind those that it has from the one it left. step_ends,
        probabilities: of the whole response, the latter where `fork_at` is "unsure"; they may be logarithms. Of equal
        ones the earlier count. A response has no fork at its end.
        """
        ends, length = list(inherited), step_ends[-1] if step_ends else 0
        left, start = len(self.factors) - 1 - len(ends), ends[-1] if ends else 0
        if self.fork_at == "unsure":
            places = sorted(range(start + 1, length), key=lambda place: probabilities[place])
            return [*ends, *sorted(places[:left])]
        places = step_ends[:-1] if self.fork_at == "steps" else range(start + 1, length)
        later = [end for end in places if end > start]
        return [*ends, *later[self.fork_every - 1 :: self.fork_every][:left]]

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
                    parent = outcomes[row // size * size :][:size]
                    size //= factor
                    values[before:end] = self._compared(outcomes[row // size * size :][:size], parent, outcomes)
                    before = end
                advantages.append(values)
        return advantages

    def _compared(self, node: torch.Tensor, parent: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
        """The advantage of a segment from the outcomes below it, below where it began, and of the whole group."""
        if self.baseline == "spo_tree":
            return (node.mean() - parent.mean()) / len(node)
        if self.baseline == "treerl":
            return (2 * node.mean() - root.mean() - parent.mean()) / math.sqrt(len(node))
        return node.mean() - (parent.sum() - node.sum()) / (len(parent) - len(node))
