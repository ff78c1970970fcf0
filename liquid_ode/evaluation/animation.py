"""An animated picture of how images come about."""

from __future__ import annotations

import io
from pathlib import Path

from torch import Tensor

from liquid_ode.evaluation.figures import write_picture
from liquid_ode.evaluation.pictures import as_picture, as_pixels, grid_of


class Frames:
    """Frames of an animation, thinned out evenly as they come, so that any number may come.

    Args:
        most: how many are kept at most, at least 2; the last that came is always among them.
    """

    def __init__(self, most: int = 60) -> None:
        if most < 2:
            raise ValueError(f"an animation must have at least 2 frames, not {most}")
        self._most, self._stride, self._came = most, 1, 0
        self._kept: list[Tensor] = []
        self._last: Tensor | None = None

    def add(self, images: Tensor) -> None:
        """Take a frame: images ``(N, C, H, W)`` in [-1, 1], the same N in all."""
        self._last = as_pixels(images)  # (N, H, W, C) of bytes
        if self._came % self._stride == 0:
            self._kept.append(self._last)
            if len(self._kept) == self._most:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._came += 1

    def frames(self) -> list[Tensor]:
        """Those kept, uint8 ``(N, H, W, C)``, in the order in which they came."""
        if self._last is None:
            return []
        kept = [frame for frame in self._kept if frame is not self._last]
        return [*kept, self._last]


def save_animation(
    frames: Frames,
    path: str | Path,
    columns: int = 8,
    *,
    scale: int = 2,
    seconds: float = 4.0,
    comment: str = "",
) -> Path:
    """Write frames as an endless GIF of grids, which rests on the last of them.

    Args:
        frames: at least one.
        path: the GIF; its directory is made where it is missing.
        columns: images in a row.
        scale: each pixel becomes a square of this side.
        seconds: how long all but the last frame take together; the last stays for two.
        comment: kept in the file.

    Raises:
        ValueError: there are no frames.
        OSError: the file could not be written; a file that was there is kept.
    """
    pixels = frames.frames()
    if not pixels:
        raise ValueError("an animation must have at least one frame")
    pictures = [as_picture(grid_of(each, columns, scale)) for each in pixels]
    each = max(20, round(1000 * seconds / len(pictures)))  # in ms; browsers slow down below 20
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=[each] * (len(pictures) - 1) + [2000],
        loop=0,
        comment=comment.encode(),
    )
    return write_picture(buffer.getvalue(), path)
