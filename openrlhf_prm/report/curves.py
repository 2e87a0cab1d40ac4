"""Which curves a report shows, and under which tags a run logs them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from openrlhf_prm.report.charts import Line, line_chart
from openrlhf_prm.report.run_folder import RunFolder, Series


def percent(value: float) -> str:
    """0.5 -> 50%."""
    return f"{100 * value:g}%" if abs(100 * value - round(100 * value)) < 1e-9 else f"{100 * value:.1f}%"


def number(value: float) -> str:
    """At most four digits, without an exponent where it can be avoided."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclass(frozen=True)
class TrainingCurve:
    """A curve by its title, what it tells, and the tags it may be logged under, the first one present being used."""

    title: str
    meaning: str
    tags: tuple[str, ...]
    label: Callable[[float], str] = number


CURVES = (
    TrainingCurve(
        "Accuracy of rollouts",
        "mean outcome of the sampled responses, before penalties",
        ("score", "process/accuracy", "process/outcome", "rollout/reward_mean", "reward"),
        percent,
    ),
    TrainingCurve("Process reward", "mean sum of the shaped step rewards", ("process/reward",)),
    TrainingCurve("Step score", "mean score that the PRM gives a step", ("process/step_score",)),
    TrainingCurve("Response length", "mean tokens", ("rollout/response_length_mean", "response_length")),
    TrainingCurve("Steps per response", "mean number of steps", ("process/steps",)),
    TrainingCurve(
        "KL between engines",
        "vllm_kl: how far the rollout engine's policy is from the trained one",
        ("vllm_kl",),
    ),
    TrainingCurve("KL to the reference", "distance from the policy before training", ("kl",)),
    TrainingCurve("Truncated responses", "share cut at the token limit", ("rollout/truncated_rate",), percent),
    TrainingCurve(
        "Scoring hidden",
        "share of the PRM's time that generation of other responses covers",
        ("process/scoring_hidden",),
        percent,
    ),
    TrainingCurve("Seconds per update", "rollout, rewards, training and weights together", ("timing/step_total",)),
    TrainingCurve(
        "Repeated steps", "share of a response's steps that repeat an earlier one", ("process/repetition",), percent
    ),
)

STAGE_LABELS = {"after": "step rewards", "stock": "stock OpenRLHF"}


def series_of(tags: Sequence[str], scalars: Mapping[str, Series]) -> Series:
    """The values under the first of `tags` that was logged; the host logs under `train/`. [] where none is there."""
    for tag in tags:
        if series := scalars.get(f"train/{tag}") or scalars.get(tag):
            return series
    return []


def draw_curves(run: RunFolder) -> tuple[list[tuple[TrainingCurve, str]], list[str]]:
    """(curve, SVG) of each curve that at least one run has logged, and the titles of the absent ones."""
    drawn, absent = [], []
    for curve in CURVES:
        lines = [
            Line(label, f"stage-{stage}", series_of(curve.tags, run.scalars.get(stage, {})))
            for stage, label in STAGE_LABELS.items()
        ]
        if chart := line_chart(lines, curve.label):
            drawn.append((curve, chart))
        else:
            absent.append(curve.title)
    return drawn, absent
