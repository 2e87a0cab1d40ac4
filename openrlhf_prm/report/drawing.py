"""Plots as inline SVG by matplotlib. The colours become variables of the page's style sheet, so that a plot follows
light and dark.
"""

import io
import math
import re

from openrlhf_prm.evaluation.plots import Plot

# What matplotlib draws with -> what the page's style sheet (`openrlhf_prm.report.look`) calls it.
INK, RULE = "#1d2024", "#e3e1dc"
COLOURS = ("#0b69b7", "#d9690f", "#8d9299", "#3a8f5c", "#8a5fb4", "#b8860b")
VARIABLES = {
    INK: "var(--ink)",
    RULE: "var(--rule)",
    **dict(zip(COLOURS, ("var(--blue)", "var(--orange)", "var(--grey)"), strict=False)),
}
FONT = ["system-ui", "DejaVu Sans", "sans-serif"]


def draw(plot: Plot) -> str:
    """The plot as an SVG element. Text stays text, and nothing is loaded from elsewhere."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {"svg.fonttype": "none", "svg.hashsalt": "0", "font.size": 9, "text.color": INK, "axes.labelcolor": INK}
    with matplotlib.rc_context(style):
        labels = [curve.label for curve in plot.curves] if len(plot.curves) > 1 else []
        columns = 2 if max(map(len, labels), default=0) < 28 else 1
        figure = Figure(figsize=(4.6, 3.3 + 0.19 * math.ceil(len(labels) / columns)), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        if plot.diagonal:
            axes.plot([0, 1], [0, 1], color=RULE, linewidth=1.5)
        for index, curve in enumerate(plot.curves):
            colour = COLOURS[index % len(COLOURS)]
            xs, ys = zip(*curve.points, strict=True)
            axes.plot(
                xs, ys, color=colour, marker="o" if plot.dots else None, markersize=4, linewidth=1.6, label=curve.label
            )
            known = [(x, *interval) for x, interval in zip(xs, curve.intervals, strict=False) if interval]
            if known:
                axes.fill_between(*zip(*known, strict=True), color=colour, alpha=0.13, linewidth=0)
        if plot.mark is not None:
            axes.axvline(plot.mark[0], color=INK, linewidth=0.9, linestyle=":")
            axes.annotate(
                plot.mark[1], (plot.mark[0], 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom"
            )
        if plot.powers:
            sizes = sorted({x for curve in plot.curves for x, _ in curve.points})
            axes.set_xscale("log", base=2)
            axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
            axes.minorticks_off()
        axes.set_xlabel(plot.x_name)
        axes.set_ylabel(plot.y_name)
        axes.grid(color=RULE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, colors=INK)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if labels:
            figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    svg = target.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]+", rf"font: \1px {', '.join(FONT)}", svg)
    # Identifiers are the page's, not the plot's: one plot must not take another's clip path.
    prefix = re.sub(r"\W+", "-", plot.title.lower())
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img"', svg, count=1)
