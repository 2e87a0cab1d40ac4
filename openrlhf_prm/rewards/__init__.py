"""Reward shapings: step scores of a response (S,) -> process rewards (S,), one on the last token of each step.

A shaping is a frozen dataclass, a `RewardShaping`: its fields are its options, `--process_reward.<field>`, and `needs`
says how it is called. Scores come in signed, r = 2p - 1 in [-1, 1], unless `--process_reward.score_scale probability`
or the shaping itself asks for p. To add one: a file with the dataclass, a line here. From outside:
`--process_reward.shaping FILE.py:Class`.
"""

from openrlhf_prm.rewards.clip import Clip
from openrlhf_prm.rewards.clip_delta import ClipDelta
from openrlhf_prm.rewards.consistency_filter import ConsistencyFilter
from openrlhf_prm.rewards.delta import Delta
from openrlhf_prm.rewards.gate import Gate
from openrlhf_prm.rewards.implicit import Implicit
from openrlhf_prm.rewards.min_form import MinForm
from openrlhf_prm.rewards.potential import Potential
from openrlhf_prm.rewards.progress import ProverProgress
from openrlhf_prm.rewards.sum_form import SumForm
from openrlhf_prm.rewards.verified_potential import VerifiedPotential

REWARD_SHAPINGS = {
    "sum": SumForm,
    "min_form": MinForm,
    "clip": Clip,
    "delta": Delta,
    "clip_delta": ClipDelta,
    "progress": ProverProgress,
    "gate": Gate,
    "potential": Potential,
    "verified_potential": VerifiedPotential,
    "filter": ConsistencyFilter,
    "implicit": Implicit,
}
