"""Advantages from Monte Carlo values of the states between steps, without a critic (VinePPO, arXiv:2410.01679)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.advantages.estimator import AdvantageEstimator, EstimatorNeed, StepBatch
from openrlhf_prm.advantages.tensors import mean_of_others, spread_over_tokens, whitened
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Vine(AdvantageEstimator):
    """A_k = V(s_{k+1}) - V(s_k), and R - V(s_S) for the last step; whitened over the batch unless `std_norm` is False.

    V(s_k), k >= 2, is the mean outcome of branches from the state before step k, or what stands in for them
    (`--vine.values`). V(s_1), of the question, is the mean outcome of the group's *other* responses: independent of
    this response and free. gamma 1; every token of a step gets the step's advantage. Penalties are no part of the
    values, so they are compared with the group's other responses and put on all tokens. Process rewards are not used.

    Advantages of a response telescope to R - V(question). A response without values (its group had one outcome, so
    nothing was sampled) gets its outcome's and penalties' difference to the group's others, which is 0 or close to it,
    and is divided by the same deviation without entering it. One step: R - V(question), the host's `rloo`.
    """

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset({EstimatorNeed.BRANCH_VALUES, EstimatorNeed.GROUP})
    std_norm: bool = option(True, "divide by the deviation; the host's --algo.advantage.no_std_norm")

    @property
    def unbiased(self) -> bool:
        return not self.std_norm

    def __call__(self, batch: StepBatch) -> list[torch.Tensor]:
        """B tensors (T_b,) of advantages."""
        return value_differences(batch, self.std_norm, batch.credited)


def value_differences(batch: StepBatch, std_norm: bool, masks: list[torch.Tensor] | None = None) -> list[torch.Tensor]:
    """`Vine`'s advantages, as B tensors (T_b,). masks: which tokens enter the deviation, all without them."""
    import torch

    outcomes = batch.outcome_rewards - batch.penalties
    questions = mean_of_others(outcomes, batch.group_size)
    penalties = batch.penalties - mean_of_others(batch.penalties, batch.group_size)
    advantages = []
    rows = zip(batch.values, batch.step_ends, outcomes, questions, penalties, strict=True)
    for values, ends, outcome, question, penalty in rows:
        if values is None:
            differences = (outcome - question).expand(len(ends))
        else:
            differences = torch.cat([question[None], values[1:], outcome[None]]).diff()[: len(ends)]
        advantages.append(spread_over_tokens(differences + penalty, ends))
    return whitened(advantages, [values is not None for values in batch.values], masks) if std_norm else advantages
