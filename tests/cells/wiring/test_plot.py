"""Pictures of wirings, read back from what they draw."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import Tensor

from liquid_ode import Wiring
from liquid_ode.cells.wiring import plot as wiring_plot
from tests.cells.wiring.test_wiring import LAYERS, NCP, WIRINGS, some_masks

mpl.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.text import Text


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    pyplot.close("all")


def order_of(wiring: Wiring, ax: Axes) -> list[tuple[bool, int]]:
    """What stands at each place of the columns: (is an input, its index)."""
    names = [label.get_text().split("\n")[0] for label in ax.get_xticklabels()]
    places = []
    for name in names:
        part = slice(0, wiring.input_size) if name == "inputs" else wiring.layers[name]
        places += [(name == "inputs", index) for index in range(part.start, part.stop)]
    return places


def masks_drawn(wiring: Wiring, ax: Axes) -> tuple[Tensor, Tensor]:
    """The masks as the lines of a picture tell them; each line counts."""
    lines = [artist for artist in ax.collections if isinstance(artist, LineCollection)]
    nodes = [artist for artist in ax.collections if not isinstance(artist, LineCollection)]
    points = np.concatenate([np.asarray(artist.get_offsets()) for artist in nodes])
    places = order_of(wiring, ax)
    assert len(points) == len(places)
    at = {tuple(np.round(p, 6)): place for p, place in zip(points, places, strict=True)}
    assert len(at) == len(places)  # none hides another
    recurrent = torch.zeros(wiring.units, wiring.units, dtype=torch.int64)
    inputs = torch.zeros(wiring.units, wiring.input_size or 0, dtype=torch.int64)
    for collection in lines:
        for segment in collection.get_segments():
            is_input, source = at[tuple(np.round(segment[0], 6))]
            _, target = at[tuple(np.round(segment[-1], 6))]
            (inputs if is_input else recurrent)[target, source] += 1
    return recurrent, inputs


COLUMNS = {
    "ncp": WIRINGS["ncp"],
    "auto_ncp": Wiring.auto_ncp(16, 64, 8),
    "with feedback": WIRINGS["from_mask"],
    "without inputs": Wiring.from_mask(some_masks()[0], layers=LAYERS),
    "without synapses": Wiring.from_mask(torch.zeros(9, 9, dtype=torch.bool), layers=LAYERS),
}


@pytest.mark.parametrize("wiring", COLUMNS.values(), ids=COLUMNS)
def test_columns_show_every_synapse_once(wiring: Wiring) -> None:
    ax = wiring.plot()
    recurrent, inputs = masks_drawn(wiring, ax)
    assert torch.equal(recurrent, wiring.recurrent.long())
    if wiring.inputs is not None:
        assert torch.equal(inputs, wiring.inputs.long())
    ax.figure.canvas.draw()
    for collection in ax.collections:
        if isinstance(collection, LineCollection):  # none leads out of the picture
            ends = np.concatenate(collection.get_segments())
            assert (ends >= [ax.get_xlim()[0], ax.get_ylim()[0]]).all()
            assert (ends <= [ax.get_xlim()[1], ax.get_ylim()[1]]).all()
    assert f"{wiring.units} neurons" in ax.get_title(loc="left")
    legend = ax.get_legend()
    labels = [] if legend is None else [text.get_text() for text in legend.get_texts()]
    told = sum(int(label.rsplit("(", 1)[1].rstrip(")")) for label in labels)
    assert told == wiring.synapses + (wiring.sensory_synapses or 0)


def test_columns_run_from_the_inputs_to_the_motor_neurons() -> None:
    ax = WIRINGS["ncp"].plot()
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == ["inputs\n5", "inter\n6", "command\n4", "motor\n2"]
    lines = [artist for artist in ax.collections if isinstance(artist, LineCollection)]
    kinds = [str(line.get_label()).rsplit(" (", 1)[0] for line in lines]
    expected = ["inputs → inter", "inter → command", "command → motor", "recurrent, clockwise"]
    assert kinds == expected
    for line in lines[:3]:
        assert all(len(segment) == 2 for segment in line.get_segments())  # straight
    assert all(len(segment) > 10 for segment in lines[3].get_segments())
    assert len({tuple(map(tuple, line.get_colors())) for line in lines}) == 4


def test_arcs_run_clockwise_and_ways_back_are_dashed() -> None:
    recurrent = torch.zeros(4, 4, dtype=torch.bool)
    for source, target in ((0, 1), (1, 0), (2, 2), (2, 0), (1, 3)):
        recurrent[target, source] = True
    layers = {"motor": slice(0, 2), "inter": slice(2, 4)}
    ax = Wiring.from_mask(recurrent, layers=layers).plot()
    forward, arcs, back = (c for c in ax.collections if isinstance(c, LineCollection))
    assert [len(c.get_segments()) for c in (forward, arcs, back)] == [1, 3, 1]
    assert (forward.get_linestyle()[0][1], arcs.get_linestyle()[0][1]) == (None, None)
    assert back.get_linestyle()[0][1] is not None
    for arc in arcs.get_segments():
        down = arc[0, 1] - arc[-1, 1]
        if down:  # on the right on the way down, on the left on the way up
            assert np.sign(arc[len(arc) // 2, 0] - arc[0, 0]) == np.sign(down)
        else:
            assert np.ptp(arc, axis=0).min() > 0.01  # a loop, not a point


MATRICES = {
    "full": WIRINGS["full"],
    "one neuron": Wiring.full(1),
    "random": Wiring.random(200, sparsity=0.9, input_size=20),
    "wide": Wiring.random(3, sparsity=0.5, input_size=90),
    "layers of many": Wiring.auto_ncp(20, 200, 10),
    "small layers": Wiring.ncp(5, **{**NCP, "inter": 197, "motor": 1, "command": 4}),
}


@pytest.mark.parametrize("wiring", MATRICES.values(), ids=MATRICES)
def test_matrices_show_the_masks(wiring: Wiring) -> None:
    ax = wiring.plot()
    ax.figure.canvas.draw()
    images = ax.get_images()
    assert np.array_equal(np.asarray(images[0].get_array()), wiring.recurrent.numpy())
    assert tuple(images[0].get_extent()) == (0, wiring.units, wiring.units, 0)
    if wiring.inputs is None:
        assert len(images) == 1
    else:
        assert np.array_equal(np.asarray(images[1].get_array()), wiring.inputs.numpy())
        left, right, bottom, top = images[1].get_extent()
        assert (right - left, bottom, top) == (wiring.input_size, wiring.units, 0)
        assert right < 0  # to the side
    names = [label.get_text() for label in ax.get_yticklabels()]
    if len(wiring.layers) > 1:
        assert names == list(wiring.layers)
        boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
        assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))
    else:
        assert names[0] == "0"
        assert len(names) <= 13


def test_nothing_is_cut_off_or_overlaps_the_heading() -> None:
    for wiring in (*WIRINGS.values(), *MATRICES.values(), *COLUMNS.values()):
        ax = wiring.plot()
        figure = ax.get_figure()
        assert figure is not None
        figure.canvas.draw()
        texts = [text for text in ax.findobj(Text) if text.get_text()]
        (heading,) = (
            text.get_window_extent()
            for text in texts
            if text.get_text() == ax.get_title(loc="left")
        )
        for box in (text.get_window_extent() for text in texts):
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.width
            assert box.y1 <= figure.bbox.height
            assert box.bounds == heading.bounds or not box.overlaps(heading)
        pyplot.close("all")


def test_plot_draws_in_the_axes_it_is_given() -> None:
    _, axes = pyplot.subplots(1, 2)
    before = pyplot.get_fignums()
    for ax, wiring in zip(axes, (WIRINGS["full"], WIRINGS["ncp"]), strict=True):
        assert wiring.plot(ax) is ax
        assert ax.get_title(loc="left")
    assert pyplot.get_fignums() == before
    assert WIRINGS["full"].plot().figure is not axes[0].figure


@pytest.mark.parametrize("bad", ["ax", 3, pyplot])
def test_bad_axes(bad: Any) -> None:
    with pytest.raises(ValueError, match="ax must be a matplotlib Axes"):
        Wiring.full(2).plot(bad)


# How a screen's linear red, green and blue look to people without one kind of cone (Machado,
# Oliveira & Fernandes 2009, severity 1).
VISIONS = {
    "all cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def lab(colour: str, vision: Any) -> np.ndarray:
    """CIE L*a*b* of a colour as seen with a vision."""
    values = np.asarray(mpl.colors.to_rgb(colour))
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    xyz = np.asarray(TO_XYZ) @ np.clip(np.asarray(vision) @ linear, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISIONS.values(), ids=VISIONS)
def test_colours_are_told_apart_with_any_vision(vision: Any) -> None:
    lines = [*wiring_plot.FORWARD, wiring_plot.RECURRENT, wiring_plot.BACKWARD, "white"]
    cells = [wiring_plot.NEURONS, wiring_plot.INPUTS, wiring_plot.ABSENT]
    pairs = [*combinations(lines, 2), *combinations(cells, 2)]
    for one, other in pairs:  # 2 is about the least distance that one notices
        assert np.linalg.norm(lab(one, vision) - lab(other, vision)) > 25, (one, other)
