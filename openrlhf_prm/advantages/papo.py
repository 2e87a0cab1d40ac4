"""Outcome and process advantages normalised apart: PAPO (arXiv:2603.26535)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.advantages.estimator import AdvantageEstimator, EstimatorNeed, StepBatch
from openrlhf_prm.advantages.tensors import against_others, standardised
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class PAPO(AdvantageEstimator):
    """A = (R - mean(R)) / std(R) + `process_weight` * (P - mean(P)) / std(P), the first over the group, the second
    over its right responses and 0 for wrong ones; the same on all tokens of a response.

    R is the outcome reward, P the sum of a response's process rewards (the authors' PRM gives one rubric score of 0,
    0.5 or 1 per response). How well a solution is argued counts only among right ones, so nothing that pleases the PRM
    makes up for a wrong answer, and a group that is all right still has a gradient. Without deviations this second part
    points, in expectation, along the gradient of the mean P of right responses: the PRM ranks right solutions and
    cannot make them fewer or more. `std_norm` False leaves both deviations out, as in the authors' code.
    Fewer than two right responses, or such that agree: no second part.

    `baseline` "response" instead compares R + `process_weight` * P * [right] as a whole with the mean of the group's
    others, and with `std_norm` divides by its deviation; without it the expected gradient is exactly that of this
    reward, the outcome and what right responses earn for their steps.
    """

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset(
        {EstimatorNeed.STEP_REWARDS, EstimatorNeed.GROUP, EstimatorNeed.VERDICTS}
    )
    std_norm: bool = option(True, "divide by the deviation; the host's --algo.advantage.no_std_norm")
    process_weight: float = option(1.0, "weight of the process part against the outcome's", least=0)
    baseline: str = option(
        "right", "whose process rewards are compared: those of right responses, or whole rewards with the others'",
        choices=("right", "response"),
    )  # fmt: skip

    @property
    def unbiased(self) -> bool:
        return self.baseline == "response" and not self.std_norm and self.process_weight == 1.0

    @property
    def rescales_process_rewards(self) -> str:
        divides = self.baseline == "right" and self.std_norm
        return "papo, which has --algo.advantage.process_weight," if divides else ""

    def __call__(self, batch: StepBatch) -> list[torch.Tensor]:
        """B tensors (T_b,) of advantages."""
        import torch

        totals = torch.stack([rewards.sum() for rewards in batch.process_rewards])
        advantages = torch.zeros_like(batch.outcome_rewards)
        for places in map(list, batch.groups):
            outcomes, process, right = batch.outcome_rewards[places], totals[places], batch.correct[places]
            if self.baseline == "response":
                whole = outcomes + self.process_weight * process * right
                advantages[places] = against_others(whole, self.std_norm)
                continue
            group = standardised(outcomes, self.std_norm)
            if right.any():
                group[right] += self.process_weight * standardised(process[right], self.std_norm)
            advantages[places] = group
        lengths = [int(ends[-1]) if len(ends) else 0 for ends in batch.step_ends]
        return [value.repeat(length) for value, length in zip(advantages, lengths, strict=True)]
