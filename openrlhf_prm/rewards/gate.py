"""Gate: the PRM speaks only where the outcome says nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.rewards.min_form import MinForm

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Min form on groups whose responses are all wrong, 0 on every other group.

    With a group baseline the outcome gives such a group no gradient at all; everywhere else it is exact and the PRM
    could only disturb it. So the PRM can be hacked only on questions that are not solved, and its part shrinks as
    accuracy grows. The idea is VeriGate's; which process reward it gates is our choice, the min form, whose
    `temperature` it takes. A group of one counts as all wrong when it is wrong.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"group"})
    temperature: float = 0.1

    def __post_init__(self):
        MinForm(temperature=self.temperature)

    def __call__(self, scores: list[torch.Tensor], correct: torch.Tensor) -> list[torch.Tensor]:
        if correct.any():
            return [own * 0 for own in scores]
        min_form = MinForm(temperature=self.temperature)
        return [min_form(own) for own in scores]
