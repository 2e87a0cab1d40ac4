"""Length penalties: the responses of a rollout -> what is added to each one's outcome reward. Counted in tokens.

A penalty is a frozen dataclass (its fields are its options, `--length_penalty.<field>`) called with a `LengthBatch`; it
returns (B,). What a paper publishes as a whole reward is given here less the 0/1 outcome, so that outcome plus penalty
is the paper's reward. `needs` says what of the batch it reads beside lengths and correctness: "tokens", "targets",
"questions", "state", "group" (several responses per question). A penalty with "state" keeps what it learned in the
batch's `state`, which travels with checkpoints. To add one: a file with the dataclass, a line here.
"""

from openrlhf_prm.length_penalties.cosine import Cosine
from openrlhf_prm.length_penalties.grpo_lambda import GRPOLambda
from openrlhf_prm.length_penalties.kimi import Kimi
from openrlhf_prm.length_penalties.lagrangian import Lagrangian
from openrlhf_prm.length_penalties.lcpo import LCPOExact, LCPOMax
from openrlhf_prm.length_penalties.o1_pruner import O1Pruner
from openrlhf_prm.length_penalties.overlong import Overlong

LENGTH_PENALTIES = {
    "kimi": Kimi,
    "overlong": Overlong,
    "cosine": Cosine,
    "lcpo_exact": LCPOExact,
    "lcpo_max": LCPOMax,
    "o1_pruner": O1Pruner,
    "grpo_lambda": GRPOLambda,
    "lagrangian": Lagrangian,
}
