"""Watching for reward hacking: process rewards or step scores that rise while accuracy falls."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from openrlhf_prm.options import Options, option


@dataclass(frozen=True, kw_only=True)
class WatchOptions(Options):
    """`--watch.<field>`."""

    window: int = option(20, "rollouts looked back on for rising rewards and falling accuracy", least=5)
    alpha: float = option(0.001, "significance that both trends must reach", above=0, below=1)


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
