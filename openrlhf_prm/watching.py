"""Watching for reward hacking: process rewards that rise while accuracy falls."""

from collections import deque
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
    """Keeps the last `window` rollouts' mean process reward and accuracy, and tells when the two part.

    Hacking is reported when the process reward rises and accuracy falls over the window, each by a one-sided
    Mann-Kendall trend test (Kendall's tau against time, `scipy.stats.kendalltau`) with p < alpha. Ranks make it
    indifferent to the scale of the rewards and to outliers. A window is tested after every rollout, so a strict alpha
    keeps false alarms rare: of simulated runs of 100 rollouts whose process rewards rise while accuracy only jitters,
    0.001 reports 1.5% and 0.01 28%. Never before the window is full, nor while one of the two is constant.
    """

    def __init__(self, options: WatchOptions):
        self.options = options
        self.rollouts: deque[tuple[float, float]] = deque(maxlen=options.window)

    def update(self, process_reward: float, accuracy: float) -> bool:
        """Adds a rollout; whether hacking shows in the window that ends with it."""
        from scipy.stats import kendalltau

        self.rollouts.append((process_reward, accuracy))
        if len(self.rollouts) < self.options.window:
            return False
        rewards, accuracies = zip(*self.rollouts, strict=True)
        if len(set(rewards)) == 1 or len(set(accuracies)) == 1:
            return False
        time = range(len(rewards))
        rising = kendalltau(time, rewards, alternative="greater").pvalue
        falling = kendalltau(time, accuracies, alternative="less").pvalue
        return bool(rising < self.options.alpha and falling < self.options.alpha)

    def state_dict(self) -> dict:
        return {"rollouts": [list(rollout) for rollout in self.rollouts]}

    def load_state_dict(self, state: dict) -> None:
        self.rollouts.clear()
        self.rollouts.extend(tuple(rollout) for rollout in state["rollouts"])
