"""The size of an image as users write it: 32, "24x32", or (24, 32)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from liquid_ode.data.images import CHANNELS


def parse_size(size: int | str | Sequence[int]) -> tuple[int, int]:
    """(height, width), both at least 1, out of one side, ``"HEIGHTxWIDTH"`` or a pair.

    Raises:
        ValueError: ``size`` is none of these.
    """
    sides: object = size
    if isinstance(size, str) and re.fullmatch(r"\d+([x×]\d+)?", size):
        sides = [int(side) for side in re.split("[x×]", size)]
    if isinstance(sides, int):
        sides = [sides]
    whole = isinstance(sides, Sequence) and all(
        isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in sides
    )
    if not (whole and isinstance(sides, Sequence) and len(sides) in (1, 2)):
        raise ValueError(
            "image_size must be a side of at least 1 pixel, as 32, or height and width, as 24x32, "
            f"got {size!r}"
        )
    return sides[0], sides[-1]


def written_size(size: int | str | Sequence[int]) -> int | str:
    """A size in one form for each: 32 for all squares of 32, ``"24x32"``, height first.

    Raises:
        ValueError: see :func:`parse_size`.
    """
    height, width = parse_size(size)
    return height if height == width else size_text(height, width)


def size_text(height: int, width: int) -> str:
    """A size for people: ``24x32``, height first."""
    return f"{height}x{width}"


def check_channels(channels: int) -> None:
    """Raise ValueError where there are no images of so many channels."""
    if channels not in CHANNELS:
        raise ValueError(
            f"image_channels must be 1 (grey), 3 (RGB) or 4 (RGB and alpha), got {channels!r}"
        )
