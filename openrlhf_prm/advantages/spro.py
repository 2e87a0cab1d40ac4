"""The policy's own log-ratios as process rewards: SPRO with masked step advantages (arXiv:2507.01551)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.advantages.estimator import AdvantageEstimator, EstimatorNeed, StepBatch
from openrlhf_prm.advantages.tensors import against_others, standardised
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class SPRO(AdvantageEstimator):
    """A_t = (R - mean(R)) / std(R) + C_t - mean_j C_jt with C_t = beta * sum_{s <= t} log(pi(y_s) / pi_ref(y_s)).

    C_t is what the policy's distance from its reference says that the response's first t tokens are worth; it is
    compared at the same place with the group's responses that have a t-th token, so that length is neither paid nor
    charged. No PRM, no branches. The longest response is compared with itself alone at its end: 0. `beta` could not be
    found in the paper: the default is PRIME's. A policy that equals its reference: the outcome's advantage alone, the
    host's `group_norm`.

    What stood before token t tells nothing of it, so in expectation the second part adds beta times the gradient of
    KL(pi, pi_ref) at every state that is visited: it drives the policy on in the direction in which it has left its
    reference. `baseline` "others" leaves the response itself out of both means (at places that no other reaches, the
    others' last C), which makes that exact without `std_norm`, and with `beta` 0 the outcome's gradient alone.
    """

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset({EstimatorNeed.GROUP, EstimatorNeed.POLICY_LOG_RATIOS})
    std_norm: bool = option(True, "divide by the deviation; the host's --algo.advantage.no_std_norm")
    beta: float = option(0.05, "reward per unit of log-ratio", least=0)
    baseline: str = option("group", "whose outcomes and log-ratios are compared", choices=("group", "others"))

    @property
    def unbiased(self) -> bool:
        return self.baseline == "others" and not self.std_norm and not self.beta

    def __call__(self, batch: StepBatch) -> list[torch.Tensor]:
        """B tensors (T_b,) of advantages."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        advantages = []
        for places in batch.groups:
            outcomes = batch.outcome_rewards[list(places)]
            compared = standardised if self.baseline == "group" else against_others
            of_outcome = compared(outcomes, self.std_norm)
            credit = [self.beta * batch.log_ratios[place].cumsum(-1) for place in places]
            padded = pad_sequence(credit, batch_first=True, padding_value=float("nan"))  # (G, T)
            last = [float(tokens[-1]) if len(tokens) else 0.0 for tokens in credit]
            for row, tokens in enumerate(credit):
                if self.baseline == "group":
                    baseline = padded.nanmean(0)
                else:
                    others = torch.cat([padded[:row], padded[row + 1 :]])
                    ended = (sum(last) - last[row]) / max(len(last) - 1, 1)
                    baseline = others.nanmean(0).nan_to_num(ended) if len(others) else padded[0] * 0
                advantages.append(of_outcome[row] + tokens - baseline[: len(tokens)])
        return advantages
