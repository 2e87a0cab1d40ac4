"""One line per update that a person can follow, and how long the run will go on."""

import math
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

SHARE, SECONDS_LEFT = "progress/share", "progress/seconds_left"

# What stands in the line, in order: name, the keys of the host's status it may come from, how it is written.
FIGURES = (
    ("accuracy", ("process/accuracy",), "{:.1%}"),
    ("stage", ("self_correction/stage",), "{:.0f}"),
    ("first attempts", ("self_correction/accuracy_t1",), "{:.1%}"),
    ("won less lost", ("self_correction/difference",), "{:+.1%}"),
    ("reward", ("rollout/reward_mean", "reward"), "{:.3g}"),
    ("process reward", ("process/reward",), "{:.3g}"),
    ("step score", ("process/step_score",), "{:.3f}"),
    ("tokens", ("rollout/response_length_mean", "response_length"), "{:.0f}"),
    ("KL", ("kl",), "{:.2g}"),
    ("KL between engines", ("vllm_kl",), "{:.2g}"),
    ("scoring hidden", ("process/scoring_hidden",), "{:.0%}"),
)

PHASES = {
    "rollout": "timing/generation",
    "rewards": "timing/make_experience",
    "training": "timing/ppo_train",
    "weights": "timing/broadcast",
}


class Progress:
    """How far a run is, by the prompts that its rollouts took.

    prompts: how many the whole run will take. What is left is estimated from what this process has seen: the seconds
    since its first update ended, times the prompts that are left, over those taken meanwhile. So there is none after
    the first update, with the engines' start and warm-up in it, and none of it is counted. With dynamic filtering a
    run takes prompts in uneven numbers; the number of updates is then an estimate, too.
    """

    def __init__(self, prompts: int, now: Callable[[], float] = time.monotonic):
        self.prompts, self.now = prompts, now
        self._first: tuple[float, int] | None = None

    def columns(self, consumed: int) -> dict[str, float]:
        """What is logged after an update: the share of prompts taken, in [0, 1], and the seconds left where they can be
        told. consumed: prompts taken since the run began, earlier processes' included.
        """
        columns = {SHARE: min(consumed / max(self.prompts, 1), 1.0)}
        if self._first is None:
            self._first = (self.now(), consumed)
        elif (taken := consumed - self._first[1]) > 0:
            columns[SECONDS_LEFT] = (self.now() - self._first[0]) * max(self.prompts - consumed, 0) / taken
        return columns


def progress_line(update: int, status: Mapping[str, float]) -> str:
    """The line of one update. status: what the host logs of it, with `Progress.columns`. What is absent or not finite
    is left out.
    """
    share = status.get(SHARE)
    parts = [f"update {update}/{max(round(update / share), update)}" if share else f"update {update}"]
    for name, keys, form in FIGURES:
        value = next((status[key] for key in keys if status.get(key) is not None), math.nan)
        if math.isfinite(value):
            parts.append(f"{name} {form.format(value)}")
    seconds = {phase: status[key] for phase, key in PHASES.items() if status.get(key) is not None}
    if seconds:
        total = status.get("timing/step_total", sum(seconds.values()))
        parts.append(f"{total:.1f} s ({', '.join(f'{phase} {value:.1f}' for phase, value in seconds.items())})")
    if SECONDS_LEFT in status:
        parts.append(f"{timedelta(seconds=round(status[SECONDS_LEFT]))} left")
    return " · ".join(parts)
