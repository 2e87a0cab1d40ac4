"""Length penalties: the responses of a rollout -> what is added to the outcome reward of each. Counted in tokens.

A penalty is a frozen dataclass, a `LengthPenalty`: its fields are its options, `--length_penalty.<field>`, `needs` says
what it reads, and it is called with a `LengthBatch` for (B,). What a paper publishes as a whole reward is given here
less the 0/1 outcome, so that outcome plus penalty is the paper's reward. A penalty that needs STATE keeps what it
learned in the batch's `state`, which travels with checkpoints. To add one: a file with the dataclass, a line here. From
outside: `--length_penalty.kind FILE.py:Class`.
"""

from openrlhf_prm.length_penalties.alp import ALP
from openrlhf_prm.length_penalties.cosine import Cosine
from openrlhf_prm.length_penalties.gfpo import GFPO, GFPODifficulty
from openrlhf_prm.length_penalties.grpo_lambda import GRPOLambda
from openrlhf_prm.length_penalties.kimi import Kimi
from openrlhf_prm.length_penalties.lagrangian import Lagrangian
from openrlhf_prm.length_penalties.laser import Laser, LaserD, LaserDE
from openrlhf_prm.length_penalties.lcpo import LCPOExact, LCPOMax
from openrlhf_prm.length_penalties.o1_pruner import O1Pruner
from openrlhf_prm.length_penalties.overlong import Overlong
from openrlhf_prm.length_penalties.truncation import Truncation, TruncationDifficulty

LENGTH_PENALTIES = {
    "kimi": Kimi,
    "overlong": Overlong,
    "cosine": Cosine,
    "lcpo_exact": LCPOExact,
    "lcpo_max": LCPOMax,
    "o1_pruner": O1Pruner,
    "grpo_lambda": GRPOLambda,
    "lagrangian": Lagrangian,
    "laser": Laser,
    "laser_d": LaserD,
    "laser_de": LaserDE,
    "alp": ALP,
    "truncation": Truncation,
    "truncation_difficulty": TruncationDifficulty,
    "gfpo": GFPO,
    "gfpo_difficulty": GFPODifficulty,
}
