"""Progress under a prover policy: process advantage verifiers (PAV, arXiv:2410.08146)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Progress:
    """r_k = alpha * (Q_k - Q_{k-1}) with Q = 1 - (1 - p)^prover_samples: what a step did for a prover's chances.

    p is the PRM's score, which must be the policy's chance of success after the step: train the PRM on soft labels.
    The prover is best-of-`prover_samples` of the policy, as the paper recommends: a prover equal to the policy
    (`prover_samples` 1) adds nothing in expectation, a prover that always succeeds tells no steps apart. Before the
    first step p is the group's share of correct responses. The paper's alpha is 3 to 5, its K 4.

    The rewards telescope to alpha * (Q_S - Q_0). Equal scores: 0 but for the first step. No step: an empty tensor.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"group", "probability"})
    alpha: float = 4.0
    prover_samples: int = 4

    def __post_init__(self):
        if self.prover_samples < 1:
            raise ValueError(f"--process_reward.prover_samples must be at least 1, got {self.prover_samples}")

    def __call__(self, scores: list[torch.Tensor], correct: torch.Tensor) -> list[torch.Tensor]:
        import torch

        solved = correct.float().mean().reshape(1)
        chances = [1 - (1 - torch.cat([solved, own])) ** self.prover_samples for own in scores]
        return [self.alpha * own.diff() for own in chances]
