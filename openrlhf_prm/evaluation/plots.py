"""What is to be drawn and tabulated, as data; `openrlhf_prm.report.benchmark_page` draws it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PlotCurve:
    """A named line through points (x, y), with the interval of each y or None."""

    label: str
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float] | None] = ()


@dataclass(frozen=True)
class Plot:
    """Curves on one pair of axes. `caption` says in a sentence what is seen; `diagonal` draws y = x behind the curves;
    `powers` puts the x values on a logarithmic axis to base 2; `mark` is an x that is pointed out, with its name.
    """

    title: str
    caption: str
    x_name: str
    y_name: str
    curves: Sequence[PlotCurve]
    diagonal: bool = False
    powers: bool = False
    mark: tuple[float, str] | None = None
    dots: bool = True


@dataclass(frozen=True)
class PlotTable:
    """A table of texts."""

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)


def reliability_plot(bins: Sequence[dict]) -> Plot:
    """The reliability diagram (DeGroot and Fienberg 1983) of `measures.steps.calibration`."""
    points = [(row["mean_score"], row["right"]) for row in bins]
    return Plot(
        title="Reliability",
        caption="Share of right steps among those with about this score; a calibrated PRM is on the diagonal.",
        x_name="mean step score of the bin",
        y_name="share of right steps",
        curves=[PlotCurve("steps up to the first error", points, [row["interval"] for row in bins])],
        diagonal=True,
    )


def percent(value: float | None, interval: Iterable[float] | None = None) -> str:
    """A share and its interval in percent."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}" + (" ({:.1f}–{:.1f})".format(*(100 * bound for bound in interval)) if interval else "")


def number(value: float | None, interval: Iterable[float] | None = None) -> str:
    """A number and its interval with three digits."""
    if value is None:
        return "–"
    return f"{value:.3f}" + (" ({:.3f}–{:.3f})".format(*interval) if interval else "")
