"""Choosing a set of images by a short text, as the command line does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from liquid_ode.data.cifar10 import load_cifar10
from liquid_ode.data.folder import load_folder
from liquid_ode.data.images import DataError, ImageSet
from liquid_ode.data.sizes import check_channels, parse_size, size_text


def load_images(
    spec: str,
    root: Path | str | None = None,
    *,
    split: Literal["train", "test"] = "train",
    image_size: int | str | Sequence[int] = 32,
    image_channels: int = 3,
    limit: int | None = None,
    labelled: bool = False,
) -> ImageSet:
    """The images that ``spec`` names: ``"cifar10"`` or ``"folder:PATH"``.

    Args:
        spec: which images.
        root: the data cache (``--data-root``), see :func:`load_cifar10`.
        split: a folder has no split of its own, so it can only be ``"train"``.
        image_size: a side, or height and width, pixels; 32 for CIFAR-10.
        image_channels: 1 (grey), 3 (RGB) or 4 (RGB and alpha); 3 for CIFAR-10.
        limit: read only the first so many images of a folder; CIFAR-10 is always read whole,
            since it is checked as a whole.
        labelled: refuse images that have no labels.

    Raises:
        DataError: the spec is unknown, or does not offer the split, the size or the channels, or
            its images cannot be had, or their labels.
        ValueError: a number is out of range.
    """
    size = parse_size(image_size)
    check_channels(image_channels)
    kind, _, path = spec.partition(":")
    if spec == "cifar10":
        if size != (32, 32) or image_channels != 3:
            raise DataError(
                f"CIFAR-10 has images of 32x32 with 3 channels, but {size_text(*size)} with "
                f"{image_channels} were asked for: leave image_size at 32 and image_channels at 3, "
                "or use 'folder:PATH', which resizes."
            )
        return load_cifar10(root, split=split)
    if kind == "folder" and path:
        if split != "train":
            # The training images again would pass for held-out ones.
            raise DataError(
                f"{spec!r} has no {split} split: a folder is one set. Keep held-out images in a "
                "second folder and name that."
            )
        return load_folder(
            path,
            image_size=size,
            image_channels=image_channels,
            limit=limit,
            labelled=labelled,
            root=root,
        )
    raise DataError(
        f"Unknown data {spec!r}. The forms are: 'cifar10' (fetched, or taken from the data "
        "cache) and 'folder:PATH' (every image file below PATH)."
    )
