"""The pictures of a report, as PNGs in memory."""

from __future__ import annotations

import io
import math

import torch
from torch import Tensor

from liquid_ode.evaluation.pictures import as_picture, as_pixels
from liquid_ode.report import elements
from liquid_ode.report.gather import Drawn, Film
from liquid_ode.report.time_constants import TimeConstants

MAP_SIDE = 64  # of the page's pixels, of a map of τ
SHOWN_LEVELS = 6


def grid_picture(drawn: Drawn, alt: str) -> str:
    """All images in a square."""
    columns = math.ceil(math.sqrt(len(drawn.images)))
    return elements.picture(_png(_tiled(as_pixels(drawn.images), columns)), alt)


def film_picture(film: Film, alt: str) -> str:
    """The frames of a film, one shown at a time."""
    frames = [_tiled(as_pixels(frame), math.ceil(len(frame) / 2)) for frame in film.frames]
    height, width = frames[0].shape[:2]
    return elements.film(_png(torch.cat(frames)), film.labels, width, height, alt)


def time_constant_table(tau: TimeConstants, limit: int = SHOWN_LEVELS) -> str:
    """The maps of τ as a table: a noise level a row; x_t, x̂0, and each cell a column."""
    count = min(limit, len(tau.sigmas))
    rows = [round(k * (len(tau.sigmas) - 1) / max(1, count - 1)) for k in range(count)]
    heads = ["<th>σ</th>", "<th>noisy x</th>", "<th>clean x̂0</th>"]
    for name, maps in tau.maps.items():
        height, width = maps.shape[1:]
        low, high = maps[rows].min(), maps[rows].max()
        heads.append(
            f"<th>{elements.text(cell_label(name))}<br>{height}x{width}<br>"
            f"τ {low:.2f}&ndash;{high:.2f}</th>"
        )
    lines = []
    for row in rows:
        sigma = tau.sigmas[row]
        # x_t has unit scale: what is mostly noise would be clipped at the range of images.
        pictures = [tau.noisy[row] / max(1.0, float(tau.noisy[row].abs().quantile(0.98)))]
        pictures.append(tau.clean[row])
        cells = [
            elements.picture(_png(as_pixels(image[None].clamp(-1, 1))[0]), what, width=MAP_SIDE)
            for image, what in zip(pictures, ("noisy", "clean"), strict=True)
        ]
        for name, maps in tau.maps.items():
            shown = _coloured(maps[row], float(maps[rows].min()), float(maps[rows].max()))
            alt = f"time constants of {name} at σ = {sigma:g}"
            cells.append(elements.picture(_png(shown), alt, width=MAP_SIDE))
        line = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f"<tr><th>{sigma:g}</th>{line}</tr>")
    return (
        f'<div class="scroll"><table class="maps"><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def cell_label(name: str) -> str:
    """A module's name in the model, without what all of them have in it."""
    parts = [part for part in name.split(".") if part not in ("cell", "liquid", "processors")]
    return ".".join(parts) or name


def _tiled(pixels: Tensor, columns: int) -> Tensor:
    """Images (N, H, W, C) of uint8 in one, (H', W', 4), with nothing between them."""
    count, height, width, channels = pixels.shape
    rows, gap = math.ceil(count / columns), 1
    canvas = torch.zeros(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, 4), dtype=torch.uint8
    )
    for index, image in enumerate(pixels):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        place = canvas[top : top + height, left : left + width]
        place[..., 3] = 255
        place[..., : max(3, channels)] = image  # grey is broadcast
    return canvas


def _coloured(values: Tensor, low: float, high: float) -> Tensor:
    """Values (h, w) from low (dark) to high (light): uint8 ``(h, w, 3)``."""
    import matplotlib

    spread = max(high - low, 1e-12)
    colours = matplotlib.colormaps["viridis"](((values - low) / spread).numpy(), bytes=True)
    return torch.from_numpy(colours[..., :3].copy())


def _png(pixels: Tensor) -> bytes:
    """Pixels (H, W, C) as a file."""
    buffer = io.BytesIO()
    as_picture(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
