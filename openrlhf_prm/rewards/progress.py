"""Progress under a prover policy: process advantage verifiers (PAV, arXiv:2410.08146)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.options import option
from openrlhf_prm.rewards.shaping import RewardShaping, ShapingNeed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ProverProgress(RewardShaping):
    """r_k = alpha * (A_k - A_{k+1}) with A_k = Q_k - Q_{k-1}, Q = 1 - (1 - p)^prover_samples, A_{S+1} = 0: the return
    from step k is alpha * A_k plus the outcome, the paper's effective reward, where A_k is what the step did for a
    prover's chances and what later steps did does not count (`--algo.advantage.lambd` 1).

    Rewards of alpha * A_k themselves would telescope to alpha * (Q_S - Q_{k-1}), potentials, which leave the prover no
    say. p is the PRM's score, which must be the policy's chance of success after the step: train the PRM on soft
    labels. The prover is best-of-`prover_samples` of the policy, as the paper recommends: a prover equal to the policy
    (`prover_samples` 1) adds nothing in expectation, a prover that always succeeds tells no steps apart. Before the
    first step p is the share of correct responses among the group's others, so that no response is charged for its own
    success; a group of one takes its own. The paper's alpha is 3 to 5, its K 4.

    Equal scores: 0 but for the first step. One step: alpha * A_1. No step: an empty tensor.
    """

    needs: ClassVar[frozenset[ShapingNeed]] = frozenset({ShapingNeed.GROUP, ShapingNeed.PROBABILITY})
    alpha: float = option(4.0, "weight of what a step did for the prover's chances")
    prover_samples: int = option(4, "the prover is best of so many samples of the policy", least=1)

    def __call__(self, scores: list[torch.Tensor], correct: torch.Tensor) -> list[torch.Tensor]:
        import torch

        verdicts = correct.float()
        solved = (verdicts.sum() - verdicts) / (len(verdicts) - 1) if len(verdicts) > 1 else verdicts
        rewards = []
        for first, steps in zip(solved, scores, strict=True):
            gains = (1 - (1 - torch.cat([first[None], steps])) ** self.prover_samples).diff()
            later = torch.cat([gains[1:], gains.new_zeros(min(len(gains), 1))])
            rewards.append(self.alpha * (gains - later))
        return rewards
