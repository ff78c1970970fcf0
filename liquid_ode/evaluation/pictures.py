"""Pictures of a run: grids of images, and the curve of the loss."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from liquid_ode.evaluation.figures import new_figure, save_figure, tidy, write_picture
from liquid_ode.evaluation.metrics import read_metrics

if TYPE_CHECKING:
    from PIL.Image import Image


def save_grid(
    images: Tensor,
    path: str | Path,
    columns: int = 8,
    *,
    scale: int = 2,
    text: Mapping[str, str] | None = None,
) -> Path:
    """Write images as one PNG, row by row, on white with a gap between them.

    Args:
        images: (N, C, H, W) with C = 1, 3 or 4; uint8, or floating point in [-1, 1].
        path: the PNG; its directory is made where it is missing.
        columns: images in a row.
        scale: each pixel becomes a square of this side.
        text: entries of the PNG's metadata, by keyword.

    Raises:
        ValueError: ``images`` is empty or of another shape, or a number is below 1.
        OSError: the file could not be written; a file that was there is kept.
    """
    return _write_png(grid_of(as_pixels(images), columns, scale), path, text or {})


def grid_of(pixels: Tensor, columns: int, scale: int) -> Tensor:
    """Images (N, H, W, C) of uint8 side by side in one, as :func:`save_grid` draws them."""
    if columns < 1 or scale < 1:
        raise ValueError(f"columns and scale must be at least 1, got {columns} and {scale}")
    count, height, width, channels = pixels.shape
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    gap = 2
    pixels = pixels.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    height, width = height * scale + gap, width * scale + gap
    shape = (rows * height + gap, columns * width + gap, channels)
    canvas = torch.full(shape, 255, dtype=torch.uint8)
    for index, image in enumerate(pixels):
        top, left = divmod(index, columns)
        top, left = gap + top * height, gap + left * width
        canvas[top : top + height - gap, left : left + width - gap] = image
    return canvas


def save_image(image: Tensor, path: str | Path) -> Path:
    """Write one image, (C, H, W), as a PNG of its own size; otherwise as ``save_grid``."""
    return _write_png(as_pixels(image.unsqueeze(0))[0], path, {})


def as_pixels(images: Tensor) -> Tensor:
    """(N, C, H, W), uint8 or floating point in [-1, 1], as (N, H, W, C) of uint8 on the CPU.

    Raises:
        ValueError: another shape or type, or no images.
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3, 4) or images.numel() == 0:
        raise ValueError(
            f"images must be (N, 3, H, W) with N > 0, or of 1 or 4 channels, "
            f"got {tuple(images.shape)}"
        )
    if images.dtype != torch.uint8:
        if not images.is_floating_point():
            raise ValueError(f"images must be uint8 or floating point, got {images.dtype}")
        from liquid_ode.data import to_uint8

        images = to_uint8(images.detach().float())
    return images.detach().cpu().permute(0, 2, 3, 1).contiguous()


def as_picture(pixels: Tensor) -> Image:
    """Pixels (H, W, C) of uint8 as a picture of Pillow: grey, RGB or RGBA."""
    from PIL import Image

    return Image.fromarray((pixels[..., 0] if pixels.shape[-1] == 1 else pixels).numpy())


def _write_png(pixels: Tensor, path: str | Path, text: Mapping[str, str]) -> Path:
    from PIL.PngImagePlugin import PngInfo

    entries = PngInfo()
    for keyword, value in text.items():
        entries.add_text(keyword, value)
    buffer = io.BytesIO()
    as_picture(pixels).save(buffer, format="PNG", pnginfo=entries)
    return write_picture(buffer.getvalue(), path)


def plot_metrics(metrics_path: str | Path, out: str | Path) -> Path:
    """Draw the loss of a run's ``metrics.jsonl`` over its steps, smoothed, as a PNG.

    Damaged lines are left out.

    Raises:
        ValueError: the file has no lines with a step and a loss.
        OSError: a file could not be read or written.
    """
    records = read_metrics(metrics_path)
    if not records:
        raise ValueError(f"{metrics_path} has no metrics to draw")
    steps = [record["step"] for record in records]
    losses = [record["loss"] for record in records]

    figure = new_figure(8, 4.5)
    axes = figure.add_subplot()
    few = len(steps) < 20
    axes.plot(steps, losses, color="#9db8d2", linewidth=1, marker="o" if few else None,
              markersize=4, label="mean of each interval")  # fmt: skip
    if not few:
        axes.plot(steps, smoothed(losses), color="#1f4e79", linewidth=2, label="smoothed")
    axes.set(xlabel="optimizer step", ylabel="training loss (log scale)", yscale="log")
    last = records[-1]
    axes.set_title(f"loss {last['loss']:.4g} at step {last['step']:,}", loc="left")
    axes.set_xlim(0, steps[-1] * 1.02)
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_minor_formatter("{x:.3g}")
    tidy(axes, grid="#e4e4e4", which="both")
    axes.legend(frameon=False)
    return save_figure(figure, out)


def smoothed(values: Sequence[float]) -> list[float]:
    """Average over neighbours on both sides with Gaussian weights, over fewer near the start."""
    series = torch.tensor(values, dtype=torch.float64)
    places = torch.arange(len(values), dtype=torch.float64)
    smooth = []
    for place in places:
        width = max(0.5, min(len(values) / 50, float(place) / 5))
        weights = torch.exp(-0.5 * ((places - place) / width) ** 2)
        smooth.append(float((weights * series).sum() / weights.sum()))
    return smooth
