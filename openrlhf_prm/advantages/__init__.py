"""Advantage estimators that know steps, and what the host's own estimators do to step rewards.

An estimator is a frozen dataclass (its fields are its options) with `needs`, the set of what callers must gather for
it, and a call from a `StepBatch` to one advantage per response token. To add one: a file with the dataclass, a line
here.
"""

from openrlhf_prm.advantages.step_group import StepGroup
from openrlhf_prm.advantages.step_returns import StepReturns

ADVANTAGE_ESTIMATORS = {"step_group": StepGroup, "step_returns": StepReturns}
