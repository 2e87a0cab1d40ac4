"""Charts as inline SVG. Colours come from the page's style sheet, so that a chart follows light and dark."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 320, 190
LEFT, RIGHT, TOP, BOTTOM = 54, 10, 12, 30
SMOOTH_FROM = 12  # with fewer points the line itself is readable


@dataclass(frozen=True)
class Line:
    """A named series of (x, y); `css` is the class that colours it."""

    label: str
    css: str
    points: Sequence[tuple[float, float]]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that cover [low, high] in steps of 1, 2, 2.5 or 5 times a power of ten; `low` < `high`."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def moving_mean(values: Sequence[float], window: int) -> list[float]:
    """Centred mean over `window` values, over fewer at the ends."""
    half = window // 2
    spans = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [math.fsum(span) / len(span) for span in spans]


def line_chart(lines: Sequence[Line], label: Callable[[float], str], x_name: str = "PPO update") -> str:
    """A line chart with the values behind it for the pointer. Values that are not finite are left out.

    With many points each line is drawn faintly and its moving mean (a tenth of its length) on top. No finite point: "".
    """
    cleaned = [Line(line.label, line.css, [(x, y) for x, y in line.points if math.isfinite(y)]) for line in lines]
    cleaned = [line for line in cleaned if line.points]
    if not cleaned:
        return ""
    xs = [x for line in cleaned for x, _ in line.points]
    ys = [y for line in cleaned for _, y in line.points]
    low, high = min(ys), max(ys)
    if low == high:
        low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    marks = ticks(low, high)
    low, high = marks[0], marks[-1]
    left, right = min(xs), max(xs)
    width = (right - left) or 1

    def at_x(x: float) -> float:
        return LEFT + (x - left) / width * (WIDTH - LEFT - RIGHT)

    def at_y(y: float) -> float:
        return TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for mark in marks:
        y = at_y(mark)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 7}" y="{y + 3.5:.1f}" text-anchor="end">{escape(label(mark))}</text>'
        )
    for x, anchor in ((left, "start"), (right, "end")) if right > left else ((left, "start"),):
        parts.append(f'<text class="tick" x="{at_x(x):.1f}" y="{HEIGHT - 10}" text-anchor="{anchor}">{x:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_name)}</text>')
    for line in cleaned:
        parts += _draw(line, at_x, at_y)
    values = [
        {
            "label": line.label,
            "css": line.css,
            "points": [[x, round(at_x(x), 1), round(at_y(y), 1), label(y)] for x, y in line.points],
        }
        for line in cleaned
    ]
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" data-values="{escape(json.dumps(values))}">'
        f'{"".join(parts)}<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/></svg>'
    )


def _draw(line: Line, at_x, at_y) -> list[str]:
    css = escape(line.css)
    if len(line.points) == 1:
        [(x, y)] = line.points
        return [f'<circle class="dot {css}" cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3"/>']
    many = len(line.points) >= SMOOTH_FROM
    drawn = [f'<path class="line {css}{" faint" if many else ""}" d="{_path(line.points, at_x, at_y)}"/>']
    if many:
        means = moving_mean([y for _, y in line.points], max(3, len(line.points) // 10))
        smooth = [(x, y) for (x, _), y in zip(line.points, means, strict=True)]
        drawn.append(f'<path class="line {css}" d="{_path(smooth, at_x, at_y)}"/>')
    return drawn


def _path(points, at_x, at_y) -> str:
    return "M" + "L".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in points)


def interval_chart(rows: Sequence[tuple[float, tuple[float, float] | None, str]]) -> str:
    """Shares in [0, 1] as dots with whiskers on one axis from 0 to 100%, one row of (share, interval, css class)
    each.
    """
    height = 9 * len(rows) + 7
    parts = [f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{height}"/>' for x in (4, 54, 104, 154, 204)]
    for number, (share, interval, css) in enumerate(rows):
        y, css = 8 + 9 * number, escape(css)
        if interval is not None:
            low, high = (4 + 200 * bound for bound in interval)
            parts.append(f'<line class="whisker {css}" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot {css}" cx="{4 + 200 * share:.1f}" cy="{y}" r="3.6"/>')
    size = f'viewBox="0 0 208 {height}" width="208" height="{height}"'
    return f'<svg class="intervals" {size} role="img">{"".join(parts)}</svg>'
