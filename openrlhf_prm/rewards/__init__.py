"""Reward shapings: step scores of one response (S,) -> process rewards (S,), one on the last token of each step.

A shaping is a frozen dataclass (its fields are its options, `--process_reward.<field>`) that is called with the
scores. Scores come in signed, r = 2p - 1 in [-1, 1], unless `--process_reward.score_scale probability` asks for p
itself. To add one: a file with the dataclass, a line here.
"""

from openrlhf_prm.rewards.min_form import MinForm
from openrlhf_prm.rewards.potential import Potential
from openrlhf_prm.rewards.sum_form import SumForm

REWARD_SHAPINGS = {"sum": SumForm, "min_form": MinForm, "potential": Potential}

# How a step score p in [0, 1] enters the shaping.
SCORE_SCALES = {"signed": lambda scores: 2 * scores - 1, "probability": lambda scores: scores}
