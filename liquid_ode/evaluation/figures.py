"""What the pictures share: figures that need no display, the look of a panel, and the file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from solvers.storage import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float, **settings: Any) -> Figure:
    """A figure of so many inches, outside pyplot, which would keep it and may need a display.

    Args:
        width: in inches.
        height: in inches.
        settings: of matplotlib's ``Figure``, over 110 dots an inch and the constrained layout.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), **{"dpi": 110, "layout": "constrained", **settings})
    FigureCanvasAgg(figure)
    return figure


def tidy(
    panel: Axes, *, grid: str = "#ececec", which: Literal["major", "minor", "both"] = "major"
) -> None:
    """A pale grid behind what is drawn, at these ticks, and no frame at the top and right."""
    panel.grid(color=grid, which=which)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as a PNG; otherwise as :func:`write_picture`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return write_picture(buffer.getvalue(), path)


def write_picture(content: bytes, path: str | Path) -> Path:
    """Write a picture's bytes; its directory is made where it is missing.

    Raises:
        OSError: the file could not be written; a file that was there is kept.
    """
    path = Path(path)
    write_atomically(path, content)
    return path
