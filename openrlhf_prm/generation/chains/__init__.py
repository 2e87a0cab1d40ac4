"""Long chains of thought, written by several roles. A scheme is one file and one line.

A scheme has a keyword-only dataclass `Options` of what its chains depend on, names the kinds of `critics` that it can
be built with, the usual one first, as `Scheme(options, critic)`, names its `roles(options)`, and answers
`await write(desk)` with the `Draft` of one question.
"""

from openrlhf_prm.generation.chains.deliberate import Deliberate
from openrlhf_prm.generation.chains.plan_then_write import PlanThenWrite
from openrlhf_prm.generation.chains.tree_to_chain import TreeToChain

SCHEMES: dict[str, type] = {
    "deliberate": Deliberate,
    "plan_then_write": PlanThenWrite,
    "tree_to_chain": TreeToChain,
}
"""Name of a scheme -> class."""
