"""Line charts as inline SVG, drawn in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from liquid_ode.report.elements import text
from liquid_ode.report.numbers import short
from liquid_ode.report.style import COLOURS

WIDTH, HEIGHT = 480.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 12.0, 10.0, 42.0
MOST_POINTS = 400
_INNER = f'width="{WIDTH - LEFT - RIGHT + 8:g}" height="{HEIGHT - TOP - BOTTOM + 8:g}"'


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Args:
        label: in the legend; empty for none.
        x: positions, ascending.
        y: values; those that are not finite (or not above 0, on a logarithmic axis) are left out.
        colour: a number; lines of one number have one colour.
        faint: for what only stands behind another line.
        dots: mark each point.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis.

    Args:
        label: what it shows.
        log: whether it is logarithmic.
        from_zero: whether it begins at 0 in any case.
        settled: of a y axis: show what lines are after this part of the x axis in full, and cut off
            what they were before.
    """

    label: str
    log: bool = False
    from_zero: bool = False
    settled: float = 0.0

    def place(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def shows(self, value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not self.log)


def line_chart(lines: Sequence[Line], x: Axis, y: Axis) -> str:
    """The chart and its legend; nothing where no line has a point to show."""
    drawn = []
    for line in lines:
        points = [
            (x.place(a), y.place(b))
            for a, b in zip(line.x, line.y, strict=True)
            if x.shows(a) and y.shows(b)
        ]
        if points:
            drawn.append((line, _thinned(points)))
    if not drawn:
        return ""
    # What is faint may leave the frame, but for lines that are all there is.
    firm = [points for line, points in drawn if not line.faint] or [p for _, p in drawn]
    start = [0.0] if x.from_zero else []
    across = _span([*start, *(a for points in firm for a, _ in points)], 0.0)
    begin = across[0] + y.settled * (across[1] - across[0])
    heights = [b for points in firm for a, b in points if a >= begin]
    up = _span(heights or [b for points in firm for _, b in points], 0.06)
    parts = [
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
        f'aria-label="{text(y.label)} over {text(x.label)}">',
        _frame(x, y, across, up),
        # A picture inside the picture cuts off what leaves the frame, but for half a dot.
        f'<svg x="{LEFT - 4:g}" y="{TOP - 4:g}" {_INNER} viewBox="{LEFT - 4:g} {TOP - 4:g} '
        f'{WIDTH - LEFT - RIGHT + 8:g} {HEIGHT - TOP - BOTTOM + 8:g}">',
        *(_drawn(line, points, across, up) for line, points in drawn),
        "</svg></svg>",
    ]
    return "".join(parts) + _legend([line for line, _ in drawn if line.label])


def ticks(low: float, high: float, log: bool, most: int = 6) -> list[tuple[float, str]]:
    """(place, label) of the ticks between two places; on a logarithmic axis places are powers."""
    if log and high - low >= 0.9:
        steps = [1, 2, 5] if high - low < 2.5 else [1]
        found = [
            (power + math.log10(step), short(step * 10.0**power))
            for power in range(math.floor(low), math.ceil(high) + 1)
            for step in steps
            if low - 1e-9 <= power + math.log10(step) <= high + 1e-9
        ]
        return found[:: math.ceil(len(found) / (2 * most))]
    least, greatest = (10**low, 10**high) if log else (low, high)
    step = _round_step((greatest - least) / most)
    first = math.ceil(least / step - 1e-9)
    values = [k * step for k in range(first, math.floor(greatest / step + 1e-9) + 1)]
    return [(math.log10(v) if log else v, short(v)) for v in values if v > 0 or not log]


def _round_step(step: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is not below ``step``."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(k * power for k in (1, 2, 5, 10) if k * power >= step * (1 - 1e-9))


def _span(values: Sequence[float], margin: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        return low - 0.5, high + 0.5
    return low - margin * (high - low), high + margin * (high - low)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most so many points, each the mean of its neighbours'."""
    size = math.ceil(len(points) / MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(a for a, _ in g) / len(g), sum(b for _, b in g) / len(g)) for g in groups]


def _at(point: tuple[float, float], across: tuple[float, float], up: tuple[float, float]) -> str:
    x = LEFT + (WIDTH - LEFT - RIGHT) * (point[0] - across[0]) / (across[1] - across[0])
    y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (point[1] - up[0]) / (up[1] - up[0])
    return f"{x:.1f},{y:.1f}"


def _frame(x: Axis, y: Axis, across: tuple[float, float], up: tuple[float, float]) -> str:
    parts = []
    bottom = HEIGHT - BOTTOM
    for place, label in ticks(*up, y.log):
        at = float(_at((across[0], place), across, up).split(",")[1])
        parts.append(
            f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{at}" y2="{at}"/>'
            f'<text x="{LEFT - 6:g}" y="{at + 4:.1f}" text-anchor="end">{label}</text>'
        )
    for place, label in ticks(*across, x.log):
        at = float(_at((place, up[0]), across, up).split(",")[0])
        parts.append(
            f'<line class="grid" x1="{at}" x2="{at}" y1="{TOP:g}" y2="{bottom:g}"/>'
            f'<text x="{at}" y="{bottom + 17:g}" text-anchor="middle">{label}</text>'
        )
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(
        f'<text x="{middle:g}" y="{HEIGHT - 5:g}" text-anchor="middle">{text(x.label)}</text>'
    )
    return "".join(parts)


def _stroke(line: Line) -> str:
    dashes = ' stroke-dasharray="5 3"' if line.colour >= COLOURS else ""
    return f'stroke="var(--c{line.colour % COLOURS})"{dashes}'


def _drawn(
    line: Line,
    points: list[tuple[float, float]],
    across: tuple[float, float],
    up: tuple[float, float],
) -> str:
    places = [_at(point, across, up) for point in points]
    title = f"<title>{text(line.label)}</title>" if line.label else ""
    kind = ' class="faint"' if line.faint else ""
    found = f'<polyline{kind} {_stroke(line)} points="{" ".join(places)}">{title}</polyline>'
    if line.dots or len(places) == 1:
        for place in places:
            a, b = place.split(",")
            found += f'<circle cx="{a}" cy="{b}" r="3" fill="var(--c{line.colour % COLOURS})"/>'
    return found


def _legend(lines: Sequence[Line]) -> str:
    if len(lines) < 2:
        return ""
    entries = "".join(
        f'<li><svg width="22" height="8"><line x1="0" x2="22" y1="4" y2="4" stroke-width="3" '
        f"{_stroke(line)}/></svg>{text(line.label)}</li>"
        for line in lines
    )
    return f'<ul class="legend">{entries}</ul>'
