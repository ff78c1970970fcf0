"""Pictures of recurrent models on irregular sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from liquid_ode.evaluation.figures import new_figure, save_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from numpy.typing import NDArray

# Okabe & Ito's colours, told apart with any colour vision; a marker and dashes each as well.
_LOOKS = [("#0072B2", "o", "-"), ("#D55E00", "s", "-"), ("#009E73", "^", "-"),
          ("#CC79A7", "D", "-"), ("#56B4E9", "v", "--"), ("#000000", "X", ":"),
          ("#E69F00", "P", "-.")]  # fmt: skip
_TRUTH = "#bdbdbd"
_MISSING = "#f6e3c5"


@dataclass(frozen=True, eq=False)
class Curve:
    """Values over time: ``times`` and ``values``, both ``(M,)``; a NaN breaks the line."""

    times: Tensor
    values: Tensor


@dataclass(frozen=True, eq=False)
class Tracking:
    """A trajectory: the truth, what was observed of it, and the forecast of each model by name."""

    truth: Curve
    observed: Curve
    forecasts: Mapping[str, Curve]


def plot_tracking(
    tracked: Sequence[Tracking], path: str | Path, *, value: str, heading: str
) -> Path:
    """Draw trajectories, one in a column, with a row for each model, as a PNG.

    Args:
        tracked: at least one, all with the same models.
        path: the PNG.
        value: what is drawn, with its unit.
        heading: over all.

    Raises:
        ValueError: there is nothing to draw.
        OSError: the file could not be written.
    """
    names = list(tracked[0].forecasts) if tracked else []
    if not names:
        raise ValueError("there is no forecast to draw")
    figure = new_figure(6.2 * len(tracked) + 0.4, 1.7 * len(names) + 1.2)
    panels = figure.subplots(len(names), len(tracked), squeeze=False, sharex="col", sharey=True)
    for row, name, (colour, *_) in zip(panels, names, _cycled(len(names)), strict=True):
        for panel, one in zip(row, tracked, strict=True):
            forecast = one.forecasts[name]
            panel.plot(one.truth.times, one.truth.values, color=_TRUTH, linewidth=3.5)
            panel.plot(forecast.times, forecast.values, color=colour, linewidth=1.4)
            panel.plot(one.observed.times, one.observed.values, "ok", markersize=3)
            tidy(panel)
        row[0].set_title(name, loc="left", fontsize=10, color=colour, weight="bold")
    for panel in panels[-1]:
        panel.set_xlabel("time, s")
    figure.supylabel(value, fontsize=10)
    figure.suptitle(heading, fontsize=11, x=0.01, ha="left")
    return save_figure(figure, path)


def plot_lines(
    curves: Mapping[str, Curve], path: str | Path, *, axis: str, value: str, heading: str
) -> Path:
    """Draw a line with markers for each name, over logarithmic times, as a PNG.

    Args:
        curves: at least one.
        path: the PNG.
        axis: what ``times`` are, with their unit.
        value: what ``values`` are, with their unit.
        heading: over the panel.

    Raises:
        ValueError: there is nothing to draw.
        OSError: the file could not be written.
    """
    if not curves:
        raise ValueError("there is no line to draw")
    from matplotlib.ticker import LogLocator

    figure = new_figure(8.6, 4.6)
    panel = figure.subplots()
    for (name, curve), look in zip(curves.items(), _cycled(len(curves)), strict=True):
        _draw(panel, name, curve, look)
    panel.set(xlabel=axis, ylabel=value, xscale="log")
    panel.set_ylim(bottom=0)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.minorticks_off()
    tidy(panel)
    figure.suptitle(heading, fontsize=11, x=0.01, ha="left")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return save_figure(figure, path)


def plot_time_constants(
    inputs: Tensor,
    durations: Tensor,
    taus: Tensor,
    path: str | Path,
    *,
    value: str,
    unit: str,
    heading: str,
) -> Path:
    """Draw the time constants of a cell's neurons over time, under the input that drives them.

    Args:
        inputs: ``(T, I)``: a line where I is 1, else a row of the picture for each feature.
        durations: ``(T,)``, how long each input holds.
        taus: ``(T, H)``, in the unit of ``durations``.
        path: the PNG.
        value: what the inputs are, with their unit.
        unit: of time.
        heading: over all.

    Raises:
        ValueError: a shape does not fit.
        OSError: the file could not be written.
    """
    if not (inputs.ndim == taus.ndim == 2 and len(inputs) == len(taus) == len(durations)):
        raise ValueError(
            "inputs, durations and taus must have shapes (T, I), (T,) and (T, H), not "
            f"{tuple(inputs.shape)}, {tuple(durations.shape)} and {tuple(taus.shape)}"
        )
    edges = torch.cat([durations.new_zeros(1), durations.cumsum(0)]).numpy()
    figure = new_figure(10, 7)
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[1, 2, 1.3])
    _draw_inputs(top, edges, inputs)
    top.set_ylabel(value)
    ordered = taus[:, taus.mean(0).argsort()].T.numpy()  # (H, T)
    shades = middle.pcolormesh(edges, range(len(ordered) + 1), ordered, cmap="viridis")
    figure.colorbar(shades, ax=middle, pad=0.01, label=f"τ, {unit}")
    middle.set_ylabel("neuron, in order of its mean τ")
    _draw_some(bottom, edges, ordered, shades)
    bottom.set(xlabel=f"time, {unit}", ylabel=f"τ, {unit}\n(five neurons)")
    figure.suptitle(heading, fontsize=11, x=0.01, ha="left")
    return save_figure(figure, path)


def _draw_inputs(panel: Axes, edges: NDArray[Any], inputs: Tensor) -> None:
    """``(T, I)`` as a line of steps where I is 1, else as shades of grey."""
    if inputs.shape[1] == 1:
        panel.stairs(inputs[:, 0].numpy(), edges, color="black", linewidth=1.4, baseline=None)
        tidy(panel)
    else:
        panel.pcolormesh(edges, range(inputs.shape[1] + 1), inputs.T.numpy(), cmap="Greys")


def _draw_some(
    panel: Axes, edges: NDArray[Any], ordered: NDArray[Any], shades: ScalarMappable
) -> None:
    """Five rows of ``ordered`` ``(H, T)``, each in the shade of its mean."""
    colours = shades.to_rgba(ordered.mean(1))
    for row in torch.linspace(0, len(ordered) - 1, 5).round().int().unique().tolist():
        panel.stairs(ordered[row], edges, color=colours[row], linewidth=1.8, baseline=None)
    panel.set_xlim(0, float(edges[-1]))
    tidy(panel)


@dataclass(frozen=True, eq=False)
class Reading:
    """An image read row by row: ``pixels`` (H, W), NaN in rows that are missing, its class, and
    how likely each model by name takes that class to be after each row that is there."""

    pixels: Tensor
    label: str
    likelihoods: Mapping[str, Curve]


def plot_readings(readings: Sequence[Reading], path: str | Path, *, heading: str) -> Path:
    """Draw images beside what the models make of them row by row, as a PNG.

    Args:
        readings: at least one, all with the same models.
        path: the PNG.
        heading: over all.

    Raises:
        ValueError: there is nothing to draw.
        OSError: the file could not be written.
    """
    names = list(readings[0].likelihoods) if readings else []
    if not names:
        raise ValueError("there is no reading to draw")
    figure = new_figure(9.5, 2 * len(readings) + 1.1)
    panels = figure.subplots(len(readings), 2, squeeze=False, width_ratios=[1, 3.2])
    for (left, right), reading in zip(panels, readings, strict=True):
        left.set_facecolor(_MISSING)
        for row in reading.pixels[:, 0].isnan().nonzero().flatten().tolist():
            right.axvspan(row, row + 1, color=_MISSING, linewidth=0)
        left.imshow(reading.pixels.numpy(), cmap="Greys", vmin=0, vmax=1)
        left.set(xticks=[], ylabel=f"a {reading.label}\nrow")
        left.set_yticks(range(0, len(reading.pixels), 2))
        for (name, curve), look in zip(
            reading.likelihoods.items(), _cycled(len(names)), strict=True
        ):
            _draw(right, name, curve, look)
        right.set(ylim=(-0.03, 1.03), ylabel=f"probability of a {reading.label}")
        right.set_xlim(0, len(reading.pixels))
        tidy(right)
    panels[-1, 1].set_xlabel("rows passed")
    figure.suptitle(heading, fontsize=11, x=0.01, ha="left")
    handles, labels = panels[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return save_figure(figure, path)


def _cycled(count: int) -> list[tuple[str, str, str]]:
    return [_LOOKS[index % len(_LOOKS)] for index in range(count)]


def _draw(panel: Axes, name: str, curve: Curve, look: tuple[str, str, str]) -> None:
    colour, marker, dashes = look
    panel.plot(curve.times, curve.values, color=colour, marker=marker, linestyle=dashes,
               markersize=5, linewidth=1.4, label=name)  # fmt: skip
