"""Advantage estimators that know steps, and what the host's own estimators do to step rewards.

An estimator is a frozen dataclass (its fields are its options) with `needs`, the set of what callers must gather for
it, and a call from a `StepBatch` to one advantage per response token. Needs: "group" (several responses per
question), "step_rewards" (a PRM), "tokens", "branch_values" (values of the states between steps), "segments" (steps
cut by token probability instead of by text), "token_probabilities". To add one: a file with the dataclass, a line
here.
"""

from openrlhf_prm.advantages.min_form_rloo import MinFormRLOO
from openrlhf_prm.advantages.prime import Prime
from openrlhf_prm.advantages.spo import SPO
from openrlhf_prm.advantages.step_group import StepGroup
from openrlhf_prm.advantages.step_returns import StepReturns
from openrlhf_prm.advantages.tree import Tree
from openrlhf_prm.advantages.vine import Vine

ADVANTAGE_ESTIMATORS = {
    "step_group": StepGroup,
    "step_returns": StepReturns,
    "min_form_rloo": MinFormRLOO,
    "prime": Prime,
    "tree": Tree,
    "vine": Vine,
    "spo": SPO,
}
