"""Watching for reward hacking: process rewards or step scores that rise while accuracy falls."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """`--watch.<field>`. window: rollouts looked back on. alpha: significance both trends must reach."""

    window: int = 20
    alpha: float = 0.001

    def __post_init__(self):
        if self.window < 5:
            raise ValueError(f"--watch.window must be at least 5, got {self.window}")
        if not 0.0 < self.alpha < 1.0:
            raise ValueError(f"--watch.alpha must lie in 0..1, both excluded, got {self.alpha}")


class HackingDetector:
    """Keeps the last `window` rollouts' mean rewards and accuracy, and tells when the two part.

    Hacking is reported when one of the rewards rises and accuracy falls over the window, each by a one-sided
    Mann-Kendall trend test (Kendall's tau against time, `scipy.stats.kendalltau`) with p < alpha. Ranks make it
    indifferent to the scale of the rewards and to outliers. A window is tested after every rollout once it is half
    full, so a strict alpha keeps false alarms rare: of simulated runs of 100 rollouts whose rewards rise while accuracy
    only jitters, 0.001 reports 5% and 0.01 40%. Never while accuracy is constant.
    """

    def __init__(self, options: WatchOptions):
        self.options = options
        self.rollouts: deque[tuple[float, ...]] = deque(maxlen=options.window)

    def update(self, rewards: Sequence[float], accuracy: float) -> bool:
        """Adds a rollout with one or several kinds of reward; whether hacking shows in the window that ends with it.
        The window starts anew where their number changes, as it may after a resume with other flags.
        """
        if self.rollouts and len(self.rollouts[-1]) != len(rewards) + 1:
            self.rollouts.clear()
        self.rollouts.append((*rewards, accuracy))
        if 2 * len(self.rollouts) < self.options.window:
            return False
        *histories, accuracies = zip(*self.rollouts, strict=True)
        return self._trend(accuracies, "less") and any(self._trend(history, "greater") for history in histories)

    def _trend(self, values: Sequence[float], alternative: str) -> bool:
        from scipy.stats import kendalltau

        if len(set(values)) == 1:
            return False
        return bool(kendalltau(range(len(values)), values, alternative=alternative).pvalue < self.options.alpha)

    def state_dict(self) -> dict:
        return {"rollouts": [list(rollout) for rollout in self.rollouts]}

    def load_state_dict(self, state: dict) -> None:
        self.rollouts.clear()
        self.rollouts.extend(tuple(rollout) for rollout in state["rollouts"])
