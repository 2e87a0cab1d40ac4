"""Line figures of benchmarks as files, by matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Panel:
    """One plot: curves by name, and by name the places that are marked on a curve."""

    title: str
    curves: dict[str, Sequence[tuple[float, float]]]
    marks: dict[str, float] = field(default_factory=dict)
    x_name: str = "PPO update"
    levels: dict[str, float] = field(default_factory=dict)


def draw(path: Path, panels: Sequence[Panel], columns: int = 2) -> None:
    """The panels side by side in one SVG or PNG; a curve has the same colour in all of them."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "openrlhf-prm"  # the same figure gives the same file
    from matplotlib import pyplot

    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5.2 * columns, 3.6 * rows), squeeze=False)
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    colours = {name: f"C{index % 10}" for index, name in enumerate(names)}
    for axis, panel in zip(axes.flat, panels, strict=False):
        for name, points in panel.curves.items():
            xs, ys = [x for x, _ in points], [y for _, y in points]
            axis.plot(xs, ys, label=name, color=colours[name], linewidth=1.6)
            if name in panel.marks:
                at = panel.marks[name]
                axis.plot(at, dict(points)[at], "v", color=colours[name], markersize=9)
        for name, level in panel.levels.items():
            axis.axhline(level, color="0.5", linestyle="--", linewidth=1, label=name)
        axis.set_title(panel.title, fontsize=10)
        axis.set_xlabel(panel.x_name)
        axis.grid(alpha=0.25)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    axes.flat[0].legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
