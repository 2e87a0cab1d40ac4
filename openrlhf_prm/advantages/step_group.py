"""Group-relative step returns: credit per step without a critic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.advantages.estimator import AdvantageEstimator, EstimatorNeed, StepBatch
from openrlhf_prm.advantages.tensors import agrees, discounted, spread_over_tokens
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class StepGroup(AdvantageEstimator):
    """A_k = (G_k - mean_j G_jk) / std: the return from step k against the group's mean return from the k-th
    step.

    G_k = sum_{l >= k} lambd^(l-k) r_l + R with process rewards r and outcome reward R; responses with fewer than k
    steps do not enter that mean. The standard deviation is that of the whole responses' returns G_1 over the group
    (unbiased; left out with `std_norm` False, as in Dr. GRPO, arXiv:2503.20783). Every token of a step gets the
    step's advantage.

    `lambd` below 1 credits a step less for what later steps did. `baseline` "others" leaves the response itself out of
    the mean, so that with `std_norm` False and `lambd` 1 the gradient is exactly that of the rewards; at a step that no
    other response reaches it is the mean of the others' returns from their last step. "group" shrinks the gradient by a
    factor that varies with the number of responses that reach a step.

    Process supervision with group statistics follows GRPO (arXiv:2402.03300, section 4.1.3), which normalises rewards
    by one mean over all steps of the group and so rewards responses for having more steps; comparing returns at the
    same step index does not. With one step per response this is the host's `group_norm` (or `dr_grpo`) exactly.
    Where the returns of whole responses agree, those of later steps may not (potentials): they stay undivided.
    Degenerates to 0 where all returns of a group agree, and with "group" at a step index that only one response
    reaches. A response without tokens counts as one whose first return is R.
    """

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset({EstimatorNeed.STEP_REWARDS, EstimatorNeed.GROUP})
    std_norm: bool = option(True, "divide by the deviation; the host's --algo.advantage.no_std_norm")
    lambd: float = option(1.0, "credit for what later steps did; the host's flag", least=0, most=1)
    baseline: str = option("group", "whose returns a step's return is compared with", choices=("group", "others"))

    @property
    def unbiased(self) -> bool:
        return self.baseline == "others" and not self.std_norm and self.lambd == 1.0

    def __call__(self, batch: StepBatch) -> list[torch.Tensor]:
        """B tensors (T_b,) of advantages."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        rows = zip(batch.process_rewards, batch.outcome_rewards, strict=True)
        returns = [discounted(rewards, self.lambd) + outcome for rewards, outcome in rows]
        advantages = []
        for places in batch.groups:
            group = [returns[place] if len(returns[place]) else batch.outcome_rewards[place][None] for place in places]
            padded = pad_sequence(group, batch_first=True, padding_value=float("nan"))  # (G, S)
            scale = padded[:, 0].std() if self.std_norm and not agrees(padded[:, 0]) else 1.0
            for row, place in enumerate(places):
                steps = returns[place]
                if self.baseline == "group":
                    baseline = padded.nanmean(0)
                else:
                    others = torch.cat([padded[:row], padded[row + 1 :]])
                    last = [float(values[-1]) for other, values in enumerate(group) if other != row]
                    baseline = others.nanmean(0).nan_to_num(sum(last) / max(len(last), 1))
                advantages.append((steps - baseline[: len(steps)]) / scale)
        return [spread_over_tokens(steps, ends) for steps, ends in zip(advantages, batch.step_ends, strict=True)]
