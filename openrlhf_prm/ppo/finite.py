"""The last look at a rollout before the policy is trained on it."""

from collections.abc import Sequence

import torch
from openrlhf.trainer.ppo_utils.experience import Experience

from openrlhf_prm.cluster.guarded_strategy import NotFinite


def require_finite(experiences: Sequence[Experience]) -> Sequence[Experience]:
    """The experiences, whose advantages and returns (B, A) are numbers, padding included: the loss multiplies by the
    mask, and NaN times 0 is NaN.

    Raises NotFinite naming the first prompt for which one is NaN or infinite. Nothing was trained on then.
    """
    for experience in experiences:
        for name in ("advantages", "returns"):
            values = getattr(experience, name)
            if values is None or bool((fine := torch.isfinite(values)).all()):
                continue
            row = int((~fine).any(-1).nonzero()[0])
            outcome = (
                "" if experience.rewards is None else f", whose outcome reward is {float(experience.rewards[row])}"
            )
            raise NotFinite(
                f"{name} are not finite for the prompt {experience.prompts[row]!r}{outcome}; this rollout was not "
                "trained on"
            )
    return experiences
