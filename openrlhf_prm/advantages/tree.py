"""Values from what a group's responses share: credit per step without rollouts, critic or PRM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.advantages.estimator import AdvantageEstimator, EstimatorNeed, StepBatch
from openrlhf_prm.advantages.tensors import spread_over_tokens

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Tree(AdvantageEstimator):
    """A_k = (mean outcome of all responses that share the tokens through step k) - (mean outcome of the *other*
    responses that share the tokens before step k).

    The responses of a group form a tree of steps, and the mean outcome of those that pass a node is a Monte Carlo value
    of it that costs nothing. Where no other response shares the prefix, the deepest shared one before it stands in.
    The first mean is an unbiased estimate of what step k leads to, the second of what was expected before it and
    independent of the step, so the advantage is unbiased. Process rewards are not used.

    States are equal where the tokens before them are, those of an environment included: an agent's equal words after
    another answer of its tool lead on from another state.

    Responses that part at the first step: R - mean of the others' outcomes, on all tokens (the host's `rloo`).
    Equal outcomes: 0. Short steps and confident policies share most.
    """

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset({EstimatorNeed.TOKENS, EstimatorNeed.GROUP})

    @property
    def unbiased(self) -> bool:
        return True

    def __call__(self, batch: StepBatch) -> list[torch.Tensor]:
        """B tensors (T_b,) of advantages."""
        advantages = []
        for members in batch.groups:
            outcomes = {member: float(batch.outcome_rewards[member]) for member in members}
            for member in members:
                sharing, values, baseline = [other for other in members if other != member], [], 0.0
                before = 0
                for end in batch.step_ends[member].tolist():
                    if sharing:
                        baseline = sum(outcomes[other] for other in sharing) / len(sharing)
                    tokens = batch.token_ids[member]
                    # After its last step a response has ended; one that went on is in another state.
                    upto = None if end == len(tokens) else end
                    sharing = [other for other in sharing if batch.token_ids[other][before:upto] == tokens[before:upto]]
                    reached = [*sharing, member]
                    values.append(sum(outcomes[response] for response in reached) / len(reached) - baseline)
                    before = end
                advantages.append(spread_over_tokens(batch.outcome_rewards.new_tensor(values), batch.step_ends[member]))
        return advantages
