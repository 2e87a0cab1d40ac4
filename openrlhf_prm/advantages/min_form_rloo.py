"""Leave-one-out with a baseline per token (PURE, arXiv:2504.15275)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.advantages.estimator import AdvantageEstimator, EstimatorNeed, StepBatch
from openrlhf_prm.advantages.tensors import discounted, mean_of_others, spread_over_tokens, whitened
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class MinFormRLOO(AdvantageEstimator):
    """A_k = sum_{l >= k} (r_l - b * tokens_l) + R - mean of the others' R, with b = sum of the others' process rewards
    divided by the number of their tokens; whitened over the batch unless `std_norm` is False.

    Made for the `min_form` shaping, whose rewards sum to about the worst step's. A baseline per step would subtract
    more from a response that has more steps, so that one giant step pays; this one subtracts by tokens and does not
    see where steps are cut. R, the outcome, has the usual leave-one-out baseline (RLOO, arXiv:2402.14740). gamma 1;
    every token of a step gets the step's advantage, but tokens that only separate steps get none, as in the authors'
    code, which masks the last token of each step. There it may hold text too, which keeps its advantage here.

    The deviation is that of n - 1 over the tokens with an advantage. In the authors' program it is of n; their squares
    of masked tokens, which stand at 0, count in it, and padding is taken off n too where responses differ in length.
    Without masked tokens the two differ by the factor sqrt(n / (n - 1)).

    A price per token still charges responses for their length, for a PRM that gives positive rewards, and pays for it
    else: the expected gradient is not that of the rewards. `baseline` "response" subtracts the mean of the others'
    whole process returns instead, which is (without whitening).

    Before whitening, with one step of equal length per response this is the host's `rloo`, and equal responses have 0
    at the first step.
    """

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset({EstimatorNeed.STEP_REWARDS, EstimatorNeed.GROUP})
    separator_credit: ClassVar[bool] = False
    std_norm: bool = option(True, "divide by the deviation; the host's --algo.advantage.no_std_norm")
    baseline: str = option(
        "token", "what of the others' rewards is taken off: their mean per token, or per response",
        choices=("token", "response"),
    )  # fmt: skip

    @property
    def unbiased(self) -> bool:
        return self.baseline == "response" and not self.std_norm

    def __call__(self, batch: StepBatch) -> list[torch.Tensor]:
        """B tensors (T_b,) of advantages."""
        import torch

        totals = torch.stack([rewards.sum() for rewards in batch.process_rewards])
        lengths = torch.tensor([int(ends[-1]) if len(ends) else 0 for ends in batch.step_ends])
        of_others = mean_of_others(totals, batch.group_size)
        per_token = of_others / mean_of_others(lengths, batch.group_size).clamp(min=1)
        outcomes = batch.outcome_rewards - mean_of_others(batch.outcome_rewards, batch.group_size)
        if self.baseline == "response":
            per_token, outcomes = per_token * 0, outcomes - of_others
        advantages = []
        for rewards, ends, price, outcome in zip(
            batch.process_rewards, batch.step_ends, per_token, outcomes, strict=True
        ):
            tokens = ends.diff(prepend=ends.new_zeros(1))
            advantages.append(spread_over_tokens(discounted(rewards - price * tokens, 1.0) + outcome, ends))
        return whitened(advantages, [True] * len(advantages), batch.credited) if self.std_norm else advantages
