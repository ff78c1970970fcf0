"""Line charts: round ticks, points where they belong, and nothing that breaks on odd values."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from liquid_ode.report.charts import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Line, line_chart, ticks
from liquid_ode.report.numbers import short

SVG = "{http://www.w3.org/2000/svg}"


def drawn(chart: str) -> list[list[tuple[float, float]]]:
    """The points of each line of a chart, in the picture's units, y upwards."""
    found = re.findall(r'<polyline[^>]* points="([^"]*)"', chart)
    return [
        [(float(x), HEIGHT - float(y)) for x, y in (point.split(",") for point in line.split())]
        for line in found
    ]


def test_points_lie_where_their_values_say() -> None:
    (line,) = drawn(line_chart([Line("", [0, 10, 40], [2, 4, 3])], Axis("x"), Axis("y")))
    (x0, y0), (x1, y1), (x2, y2) = line
    assert (x0, x2) == (LEFT, WIDTH - RIGHT)
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.25, abs=1e-3)
    assert (y2 - y0) / (y1 - y0) == pytest.approx(0.5, abs=1e-2)


def test_a_logarithmic_axis_has_equal_steps_for_equal_ratios() -> None:
    lines = [Line("", [1, 2, 3], [0.01, 0.1, 1.0])]
    ((_, low), (_, middle), (_, high)) = drawn(line_chart(lines, Axis("x"), Axis("y", log=True)))[0]
    assert middle - low == pytest.approx(high - middle, abs=0.11)


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [
        (0, 1, False),
        (0.0301, 0.0347, False),
        (-3, 250_000, False),
        (-4, 0.3, True),
        (-1.5, -1, True),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, log: bool) -> None:
    found = ticks(low, high, log)
    places = [place for place, _ in found]
    assert 2 <= len(found) <= 13
    assert places == sorted(places)
    assert low - 1e-9 <= places[0]
    assert places[-1] <= high + 1e-9
    for place, label in found:
        value = 10**place if log else place
        digits = re.sub(r"[kM]|e-?\d+|[.0-]", "", label)
        assert len(digits) <= 3
        number = float(label.replace("k", "e3").replace("M", "e6"))
        assert number == pytest.approx(value, rel=1e-9, abs=1e-9)
    if not log:
        steps = [b - a for a, b in pairwise(places)]
        assert max(steps) == pytest.approx(min(steps))


def test_numbers_for_people() -> None:
    values = [0, 15_000, 1_250_000, 0.0199, 1e-5, 300, -2_000, 20_291.3]
    assert [short(value) for value in values] == [
        "0", "15k", "1.25M", "0.0199", "1e-5", "300", "-2k", "20.3k",
    ]  # fmt: skip


def test_values_without_a_place_are_left_out() -> None:
    lines = [
        Line("<bad> & odd", [1, 2, 3, 4], [math.nan, math.inf, 5.0, 6.0]),
        Line("all zero", [1, 2], [0.0, -1.0]),
        Line("one point", [2], [7.0]),
    ]
    chart = line_chart(lines, Axis("x"), Axis("y", log=True))
    assert [len(line) for line in drawn(chart)] == [2, 1]
    assert "&lt;bad&gt; &amp; odd" in chart
    ElementTree.fromstring(f"<div>{chart}</div>")  # well-formed
    assert line_chart([Line("", [], [])], Axis("x"), Axis("y")) == ""
    assert line_chart(lines[1:2], Axis("x"), Axis("y", log=True)) == ""


def test_what_comes_before_the_settled_part_is_cut_off() -> None:
    falling = [Line("", [0, 1, 50, 100], [9.0, 0.2, 0.2, 0.1])]
    (cut,) = drawn(line_chart(falling, Axis("x"), Axis("y", settled=0.01)))
    (whole,) = drawn(line_chart(falling, Axis("x"), Axis("y")))
    assert cut[2][1] - cut[3][1] > 10 * (whole[2][1] - whole[3][1])
    top = HEIGHT - TOP
    assert cut[0][1] > top >= max(y for _, y in whole + cut[1:])


def test_constant_values_and_long_lines() -> None:
    flat = drawn(line_chart([Line("", [1, 2], [3.0, 3.0])], Axis("x"), Axis("y")))
    assert flat[0][0][1] == flat[0][1][1]
    many = Line("", list(range(10_000)), [float(k % 7) for k in range(10_000)])
    assert len(drawn(line_chart([many], Axis("x"), Axis("y")))[0]) <= 400
