"""Gate: the PRM speaks only where the outcome says nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.options import option
from openrlhf_prm.rewards.min_form import MinForm
from openrlhf_prm.rewards.shaping import RewardShaping, ShapingNeed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Gate(RewardShaping):
    """Min form on groups whose outcomes all agree (`open_to` "agreeing"), 0 on every other group.

    With a group baseline the outcome gives such a group, all right or all wrong, no gradient at all; everywhere else it
    is exact and the PRM could only disturb it. The idea is VeriGate's; which process reward it gates is our choice, the
    min form, whose `temperature` it takes. "wrong" opens to groups that are all wrong only, so that the PRM can be
    hacked only on questions that are not solved, and its part shrinks as accuracy grows. A group of one agrees.
    """

    needs: ClassVar[frozenset[ShapingNeed]] = frozenset({ShapingNeed.GROUP})
    open_to: str = option("agreeing", "groups that get process rewards", choices=("agreeing", "wrong"))
    temperature: float = option(0.1, "how sharply the worst step is picked out", above=0)

    @property
    def groups(self) -> frozenset[str]:
        return frozenset({"wrong"} if self.open_to == "wrong" else {"wrong", "right"})

    def __call__(self, scores: list[torch.Tensor], correct: torch.Tensor) -> list[torch.Tensor]:
        solved = bool(correct.all()) and self.open_to == "agreeing"
        if correct.any() and not solved:
            return [steps * 0 for steps in scores]
        min_form = MinForm(temperature=self.temperature)
        return [min_form(steps) for steps in scores]
