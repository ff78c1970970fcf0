"""Pictures of wirings: layers as columns of neurons, or the masks as a matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_DRAWN = 100
"""Wirings of more neurons and inputs than this are drawn as a matrix."""

# Colours that are told apart with any colour vision, chosen from those of Okabe & Ito, Tol and IBM
# by their least distance (27 in CIE L*a*b*) under simulations of each; a test measures it.
FORWARD = ("#E69F00", "#56B4E9", "#117733", "#785EF0", "#332288")
RECURRENT, BACKWARD = "#000000", "#882255"
NEURONS, INPUTS = "#332288", "#E69F00"
ABSENT = "#f0f0f0"

LARGEST_GRID = 48
"""Cells of a matrix of at most this width stand apart."""


class Drawable(Protocol):
    """What is drawn of a :class:`liquid_ode.Wiring`, which draws itself by this module."""

    @property
    def kind(self) -> str: ...
    @property
    def recurrent(self) -> Tensor: ...
    @property
    def inputs(self) -> Tensor | None: ...
    @property
    def units(self) -> int: ...
    @property
    def input_size(self) -> int | None: ...
    @property
    def layers(self) -> Mapping[str, slice]: ...
    @property
    def synapses(self) -> int: ...
    @property
    def sensory_synapses(self) -> int | None: ...
    @property
    def sparsity(self) -> float: ...


class _Column(NamedTuple):
    """A layer of neurons, or the inputs, drawn one below the other."""

    name: str
    where: slice
    of_inputs: bool
    points: np.ndarray  # (size, 2)


class _Kind(NamedTuple):
    """Synapses that look alike: the curves ``(count, points, 2)`` of each."""

    label: str
    colour: str
    dashes: str
    curves: list[np.ndarray]


def plot_wiring(wiring: Drawable, ax: Axes | None = None) -> Axes:
    """Draw a wiring.

    A wiring with layers is drawn as columns of neurons (circles) right of its inputs (squares,
    where it knows them), in the direction of most synapses, with a line for every synapse:
    straight to the next column; bent past a column, and dashed and bent where it leads back;
    an arc within a column, which runs clockwise, from the source down on the right or up on the
    left; a loop from a neuron to itself.

    A wiring of one layer, or of more than 100 neurons and inputs, is drawn as a matrix: row i,
    column j is filled where neuron (or input) j drives neuron i.

    Args:
        wiring: what to draw.
        ax: the axes to draw in; None for those of a new figure of pyplot.

    Returns:
        the axes.

    Raises:
        ValueError: where ``ax`` is no Axes.
    """
    from matplotlib import pyplot
    from matplotlib.axes import Axes

    if ax is not None and not isinstance(ax, Axes):
        raise ValueError(f"ax must be a matplotlib Axes, or None for a new one, not {ax!r}")
    shown = wiring.units + (wiring.input_size or 0)
    as_columns = len(wiring.layers) > 1 and shown <= MOST_DRAWN
    if ax is None:
        size = _size_of_columns(wiring) if as_columns else (6.4, 5.6)
        _, ax = pyplot.subplots(figsize=size, layout="constrained")
    if as_columns:
        _draw_columns(wiring, ax)
    else:
        _draw_matrix(wiring, ax)
    ax.set_title(_heading(wiring), loc="left", fontsize=10, pad=8 if as_columns else 20)
    return ax


def _heading(wiring: Drawable) -> str:
    """Two lines, short enough for a narrow picture."""
    sensory = "every input drives every neuron"
    if wiring.sensory_synapses is not None:
        sensory = f"{wiring.sensory_synapses} from inputs"
    return (
        f"Wiring.{wiring.kind}: {_many(wiring.units, 'neuron')}, sparsity {wiring.sparsity:.2f}\n"
        f"{_many(wiring.synapses, 'synapse')}, {sensory}"
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


# Columns of neurons


def _size_of_columns(wiring: Drawable) -> tuple[float, float]:
    columns = len(wiring.layers) + (wiring.input_size is not None)
    return 2.2 + 1.7 * columns, min(max(3.6, 0.8 + 0.26 * _tallest(wiring)), 9.0)


def _tallest(wiring: Drawable) -> int:
    """The neurons, or inputs, of the column with most of them."""
    sizes = (part.stop - part.start for part in wiring.layers.values())
    return max(*sizes, wiring.input_size or 0)


def _draw_columns(wiring: Drawable, ax: Axes) -> None:
    from matplotlib.collections import LineCollection

    columns = _columns(wiring)
    kinds = _kinds(wiring, columns)
    for order, kind in enumerate(kinds):
        ax.add_collection(
            LineCollection(
                kind.curves,
                colors=kind.colour,
                linestyles=kind.dashes,
                linewidths=min(1.4, max(0.35, 9 / math.sqrt(len(kind.curves)))),
                alpha=0.8,
                label=f"{kind.label} ({len(kind.curves)})",
                zorder=1 + 0.1 * order,
            ),
            autolim=False,
        )
    height = 72 * ax.bbox.height / ax.figure.dpi  # in points, as the sizes of markers are
    diameter = min(15.0, max(3.0, 0.7 * height / _tallest(wiring)))
    for column in columns:
        ax.scatter(
            column.points[:, 0],
            column.points[:, 1],
            s=diameter**2,
            marker="s" if column.of_inputs else "o",
            facecolor="white",
            edgecolor="black",
            linewidth=0.8,
            zorder=3,
        )
        if diameter >= 9:
            for index, (x, y) in enumerate(column.points, start=column.where.start):
                ax.text(x, y, str(index), ha="center", va="center", fontsize=6.5, zorder=4)
    names = [f"{column.name}\n{len(column.points)}" for column in columns]
    ax.set_xticks(range(len(columns)), names, fontsize=9)
    ax.set_yticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    curves = (curve[:, 1] for kind in kinds for curve in kind.curves)
    heights = np.concatenate([*curves, [0.0, 1.0]])
    ax.set(xlim=(-0.4, len(columns) - 0.6), ylim=(heights.min() - 0.04, heights.max() + 0.04))
    if kinds:
        legend = ax.legend(
            loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8, handlelength=2.5
        )
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set(linewidth=2.0, alpha=1.0)


def _columns(wiring: Drawable) -> list[_Column]:
    """The columns from left to right."""
    layers = list(wiring.layers.items())
    if layers[0][0] == "motor":
        layers.reverse()
    parts = [(name, where, False) for name, where in layers]
    if wiring.input_size is not None:
        parts.insert(0, ("inputs", slice(0, wiring.input_size), True))
    columns = []
    for place, (name, where, of_inputs) in enumerate(parts):
        size = where.stop - where.start
        heights = 1 - (np.arange(size) + 0.5) / size
        points = np.stack([np.full(size, float(place)), heights], axis=1)
        columns.append(_Column(name, where, of_inputs, points))
    return columns


def _kinds(wiring: Drawable, columns: list[_Column]) -> list[_Kind]:
    """Every synapse, by how it is drawn."""
    kinds = []
    recurrent = _Kind("recurrent, clockwise", RECURRENT, "-", [])
    backward = _Kind("backward", BACKWARD, "--", [])
    loop = min(0.04, 0.4 / _tallest(wiring))
    for place, source in enumerate(columns):
        forward: list[np.ndarray] = []
        reached = []
        for other, target in enumerate(columns):
            pairs = _pairs(wiring, source, target)
            ends = [(source.points[j], target.points[i]) for i, j in pairs]
            if other == place:
                recurrent.curves.extend(_arc(start, end, loop) for start, end in ends)
            elif other < place:
                backward.curves.extend(_bent(start, end, -0.18) for start, end in ends)
            elif ends:
                bend = 0.0 if other == place + 1 else 0.12
                forward.extend(_bent(start, end, bend) for start, end in ends)
                reached.append(target.name)
        label = f"{source.name} → {', '.join(reached)}"
        kinds.append(_Kind(label, FORWARD[place % len(FORWARD)], "-", forward))
    return [kind for kind in (*kinds, recurrent, backward) if kind.curves]


def _pairs(wiring: Drawable, source: _Column, target: _Column) -> list[list[int]]:
    """The synapses from one column to another: ``[target, source]``, counted in the columns."""
    mask = wiring.inputs if source.of_inputs else wiring.recurrent
    if mask is None or target.of_inputs:
        return []
    block: list[list[int]] = mask[target.where, source.where].nonzero().tolist()
    return block


def _bent(start: np.ndarray, end: np.ndarray, bend: float) -> np.ndarray:
    """A line that swings out by ``bend`` upwards in the middle, ``(points, 2)``."""
    if bend == 0:
        return np.stack([start, end])
    s = np.linspace(0, 1, 25)[:, None]
    return (1 - s) * start + s * end + 4 * s * (1 - s) * np.array([0.0, bend])


def _arc(start: np.ndarray, end: np.ndarray, loop: float) -> np.ndarray:
    """Half an ellipse right of a column on the way down, left of it on the way up.

    From a neuron to itself, an ellipse of half the height ``loop``.
    """
    s = np.linspace(0, 1, 25)
    if np.array_equal(start, end):
        radii = np.array([0.07, loop])
        angle = 2 * math.pi * s
        return start + radii * np.stack([np.cos(angle) - 1, np.sin(angle)], axis=1)
    middle, half = (start + end) / 2, (start[1] - end[1]) / 2
    reach = math.copysign(0.1 + 0.5 * abs(half), half)
    x = middle[0] + reach * np.sin(math.pi * s)
    return np.stack([x, middle[1] + half * np.cos(math.pi * s)], axis=1)


# A matrix


def _draw_matrix(wiring: Drawable, ax: Axes) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    units, inputs = wiring.units, wiring.inputs
    gap = max(1.0, 0.03 * units)
    left = 0.0 if inputs is None else -inputs.shape[1] - gap
    blocks = [(wiring.recurrent, 0.0, NEURONS)]
    if inputs is not None:
        blocks.append((inputs, left, INPUTS))
    for mask, start, colour in blocks:
        right = start + mask.shape[1]
        ax.imshow(
            mask.to(torch.float32).numpy(),
            cmap=LinearSegmentedColormap.from_list("synapses", [ABSENT, colour]),
            vmin=0,
            vmax=1,
            extent=(start, right, units, 0),
            aspect="auto",
        )
        if units - left <= LARGEST_GRID:
            ax.vlines(np.arange(start, right + 1), 0, units, color="white", linewidth=0.8)
            ax.hlines(np.arange(units + 1), start, right, color="white", linewidth=0.8)
    ax.set(xlim=(left, units), ylim=(units, 0))
    ax.set_aspect("equal" if units - left <= 4 * units else "auto")
    ax.spines[:].set_visible(False)
    _label_matrix(wiring, ax, left)


def _label_matrix(wiring: Drawable, ax: Axes, left: float) -> None:
    """Name the blocks above the matrix, and number the neurons or name their layers."""
    units, layered = wiring.units, len(wiring.layers) > 1
    ax.set(xlabel="from neuron", ylabel="to neuron")
    blocks = [(units / 2, _many(units, "neuron"))]
    if wiring.input_size is not None:
        blocks.append((left + wiring.input_size / 2, _many(wiring.input_size, "input")))
    for middle, name in blocks:
        ax.annotate(name, (middle, 0), (0, 4), textcoords="offset points", ha="center", fontsize=8)
    if not layered:
        for axis, shown in ((ax.xaxis, units - left), (ax.yaxis, units)):
            numbers = range(0, units, _step(shown / 12))
            axis.set_ticks([number + 0.5 for number in numbers], [str(n) for n in numbers])
    else:
        parts = wiring.layers.values()
        places = _apart([(part.start + part.stop) / 2 for part in parts], 0.036 * units, units)
        ax.set_xticks(places, wiring.layers, rotation=90)
        ax.set_yticks(places, wiring.layers)
        inner = [part.start for part in parts][1:]
        ax.hlines(inner, left, units, color="black", linewidth=0.6)
        ax.vlines(inner, 0, units, color="black", linewidth=0.6)
    ax.tick_params(length=0, labelsize=8)


def _apart(places: list[float], room: float, end: float) -> list[float]:
    """The places moved as little as keeps ``room`` between them, and all before the end."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + room) if moved else place)
    after = reversed(range(len(moved)))
    return [min(place, end - room * count) for place, count in zip(moved, after, strict=True)]


def _step(least: float) -> int:
    """The first of 1, 2, 5, 10, 20, 50, ... that is at least ``least``."""
    step = 1
    while step < least:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return step
