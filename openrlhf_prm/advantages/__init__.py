"""Advantage estimators that know steps, and what the host's own estimators do to step rewards.

An estimator is a frozen dataclass, an `AdvantageEstimator`: its fields are its options, `--algo.advantage.<field>`,
`needs` says what callers must gather for it, and it is called with a `StepBatch` for one advantage per response token.
To add one: a file with the dataclass, a line here. From outside: `--algo.advantage.estimator FILE.py:Class`.
"""

from openrlhf_prm.advantages.forked_tree import ForkedTree
from openrlhf_prm.advantages.min_form_rloo import MinFormRLOO
from openrlhf_prm.advantages.papo import PAPO
from openrlhf_prm.advantages.prime import Prime
from openrlhf_prm.advantages.spo import SPO
from openrlhf_prm.advantages.spro import SPRO
from openrlhf_prm.advantages.step_group import StepGroup
from openrlhf_prm.advantages.step_returns import StepReturns
from openrlhf_prm.advantages.tree import Tree
from openrlhf_prm.advantages.vine import Vine

ADVANTAGE_ESTIMATORS = {
    "step_group": StepGroup,
    "step_returns": StepReturns,
    "min_form_rloo": MinFormRLOO,
    "prime": Prime,
    "papo": PAPO,
    "spro": SPRO,
    "tree": Tree,
    "forked_tree": ForkedTree,
    "vine": Vine,
    "spo": SPO,
}
