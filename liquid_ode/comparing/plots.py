"""Pictures of comparisons: work-precision plots, and rows of images with a label each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

import solvers
from liquid_ode.comparing.work_precision import ERROR, Row, frontier, short_name
from liquid_ode.evaluation.figures import new_figure, save_figure, tidy
from liquid_ode.evaluation.pictures import as_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Work = Literal["evaluations", "milliseconds"]
LABELS: Mapping[Work, str] = {
    "evaluations": "evaluations of the field, mean over samples",
    "milliseconds": "time of the solve, ms",
}
OWN = "own"
"""The name of the rows of a model's own solver: one point, drawn as a star."""

# Colours that are told apart with any colour vision: Tol's "muted", and three of Okabe & Ito's.
_LOOKS = {
    "euler": ("#332288", "o"),
    "uniform_euler": ("#88CCEE", "s"),
    "midpoint": ("#117733", "^"),
    "heun": ("#44AA99", "D"),
    "heun_euler": ("#44AA99", "D"),
    "ralston": ("#999933", "v"),
    "classic_rk4": ("#000000", "P"),
    "rk4": ("#000000", "X"),
    "bosh3": ("#D55E00", "p"),
    "dopri5": ("#E69F00", "s"),
    "dormand_prince": ("#E69F00", "s"),
    "tsit5": ("#0072B2", "o"),
    "exponential_euler": ("#CC6677", "<"),
    "etdrk2": ("#882255", ">"),
    "etdrk4": ("#555555", "d"),
    "semi_implicit_euler": ("#AA4499", "h"),
}
_MORE = [("#AA7744", "*"), ("#DDCC77", "8"), ("#56B4E9", "H"), ("#AAAAAA", "X"), ("#663300", "P")]
_LAYERS = {OWN: 4, "euler": 3}  # the default solver is not to hide behind one that agrees with it
_FLOOR, _CEILING = 1e-9, 3.0


class Style(NamedTuple):
    """How the line of a solver looks."""

    colour: str
    marker: str
    hollow: bool
    dashes: str


def style_of(name: str) -> Style:
    """The look of a solver, the same in every plot.

    A method has a colour and a marker. The marker is hollow where a tolerance chooses the steps;
    the line is dashed where torchdiffeq computes it.
    """
    method = _method(name)
    others = [known for known in map(_method, solvers.names()) if known not in _LOOKS]
    place = others.index(method) if method in others else sum(map(ord, method))
    colour, marker = _LOOKS.get(method) or _MORE[place % len(_MORE)]
    try:
        by_tolerance = solvers.options(name).get("rtol") is not None
        dashed = isinstance(solvers.get(name), solvers.TorchDiffEq)
    except (ValueError, TypeError):
        by_tolerance = dashed = False
    return Style(colour, marker, by_tolerance, "--" if dashed else "-")


def _method(name: str) -> str:
    return name.removeprefix("torchdiffeq:")


def plot_work_precision(
    rows: Sequence[Row], path: str | Path, work: Work, titles: Mapping[str, str], heading: str
) -> Path:
    """Draw error against work, a panel a problem, a line a solver, as a PNG.

    Both axes are logarithmic; errors above 3 lie outside. The broad grey
    line joins the points that none beats in both.

    Args:
        rows: of all problems; those that failed are left out.
        path: the PNG.
        work: what the horizontal axis shows.
        titles: of the problems, by name, in the order of the panels.
        heading: over all panels.

    Raises:
        ValueError: there is nothing to draw.
        OSError: the file could not be written.
    """
    names = list(dict.fromkeys(row.solver for row in rows if row.error is not None))
    if not names or not titles:
        raise ValueError("there is no solve that succeeded, so nothing to draw")
    columns = min(3, len(titles))
    lines = math.ceil(len(titles) / columns)
    figure = new_figure(4.6 * columns + 2.6, 3.9 * lines + 0.5)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for panel, (problem, title) in zip(axes, titles.items(), strict=False):
        _draw_panel(panel, [row for row in rows if row.problem == problem], work)
        panel.set_title(title, loc="left", fontsize=9)
    for panel in axes[len(titles) :]:
        panel.set_visible(False)
    figure.supxlabel(LABELS[work], fontsize=10)
    figure.supylabel(ERROR, fontsize=10)
    figure.suptitle(
        f"{heading} (errors above {_CEILING:g} and failures not shown)",
        fontsize=11,
        x=0.01,
        ha="left",
    )
    _add_legend(figure, names)
    return save_figure(figure, path)


def _draw_panel(panel: Axes, rows: Sequence[Row], work: Work) -> None:
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        at = getattr(row, work)
        if row.error is not None and at is not None:
            # An exact result has a place on the axis too.
            points.setdefault(row.solver, []).append((at, max(row.error, _FLOOR)))
    shown = [point for line in points.values() for point in line if point[1] <= _CEILING]
    best = frontier(shown)
    if best:
        panel.plot(*zip(*best, strict=True), color="#dcdcdc", linewidth=9, zorder=1,
                   solid_capstyle="round", solid_joinstyle="round")  # fmt: skip
    for name, line in points.items():
        # In the order of evaluations, which is that of the settings, also where times are noisy.
        panel.plot(*zip(*line, strict=True), zorder=_LAYERS.get(name, 2), **_drawing(name))
    panel.set(xscale="log", yscale="log")
    if shown:
        errors = [error for _, error in shown]
        panel.set_ylim(min(errors) / 2, min(_CEILING, 2 * max(errors)))
    panel.tick_params(labelsize=8)
    tidy(panel)


def _drawing(name: str) -> dict[str, Any]:
    """The arguments of matplotlib's plot for a solver."""
    if name == OWN:
        return {"color": "black", "marker": "*", "markersize": 13, "linestyle": "none"}
    style = style_of(name)
    return {
        "color": style.colour,
        "marker": style.marker,
        "linestyle": style.dashes,
        "linewidth": 1.2,
        "markersize": 5,
        "markerfacecolor": "white" if style.hollow else style.colour,
    }


def _add_legend(figure: Figure, names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    labels = {OWN: "the run's own"}
    entries = [
        Line2D([], [], label=labels.get(name, short_name(name)), **_drawing(name)) for name in names
    ]
    keys = [
        Line2D([], [], color="#dcdcdc", linewidth=7, label="best of all"),
        Line2D([], [], color="black", marker="o", linestyle="-", linewidth=1.2, markersize=5,
               label="by number of steps"),
        Line2D([], [], color="black", marker="o", linestyle="-", linewidth=1.2, markersize=5,
               markerfacecolor="white", label="by tolerance"),
        Line2D([], [], color="black", linestyle="--", linewidth=1.2, label="torchdiffeq"),
    ]  # fmt: skip
    figure.legend(
        handles=[*entries, *keys], loc="outside right upper", frameon=False, fontsize=9,
        handlelength=3,
    )  # fmt: skip


def plot_image_rows(
    rows: Sequence[tuple[str, Tensor]], path: str | Path, heading: str, *, scale: int = 2
) -> Path:
    """Draw rows of images, each with its label at the left, as a PNG.

    Args:
        rows: labels of up to two lines, and images ``(N, 3, H, W)`` in [-1, 1], of one size.
        path: the PNG.
        heading: over all rows, of any number of lines.
        scale: each pixel becomes a square of this side.

    Raises:
        ValueError: there are no rows, or images are not as described.
        OSError: the file could not be written.
    """
    strips = [_strip(images, scale) for _, images in rows]
    if not strips or any(strip.shape != strips[0].shape for strip in strips):
        raise ValueError("plot_image_rows needs at least one row, and images of one size")
    height, width, _ = strips[0].shape
    told = heading.split("\n")
    dpi, top = 100, 20 + 18 * len(told)
    labels = 30 + round(6.6 * max(len(line) for label, _ in rows for line in label.split("\n")))
    total = labels + max(width, round(6.6 * max(map(len, told))) - labels), top + len(rows) * height
    figure = new_figure(total[0] / dpi, total[1] / dpi, dpi=dpi, layout=None)
    figure.text(10 / total[0], 1 - 0.5 * top / total[1], heading, va="center", fontsize=9)
    for index, ((label, _), strip) in enumerate(zip(rows, strips, strict=True)):
        middle = total[1] - top - (index + 0.5) * height
        name, _, rest = label.partition("\n")
        place: dict[str, Any] = {"x": 10 / total[0], "fontsize": 8}
        if rest:
            figure.text(y=(middle + 9) / total[1], s=name, va="center", weight="bold", **place)
            figure.text(y=(middle - 9) / total[1], s=rest, va="center", **place)
        else:
            figure.text(y=middle / total[1], s=name, va="center", weight="bold", **place)
        bottom = total[1] - top - (index + 1) * height
        # Whole pixels at the picture's own resolution, so that nothing is interpolated.
        figure.figimage(strip.numpy(), xo=labels, yo=bottom, origin="upper")
    return save_figure(figure, path)


def _strip(images: Tensor, scale: int) -> Tensor:
    """Images side by side on white: ``(height, width, 3)``, uint8."""
    pixels = as_pixels(images).repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    gap = 2
    count, height, width, _ = pixels.shape
    strip = torch.full((height + gap, count * (width + gap), 3), 255, dtype=torch.uint8)
    for index, image in enumerate(pixels):
        left = index * (width + gap)
        strip[:height, left : left + width] = image
    return strip
