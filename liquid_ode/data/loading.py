"""Choosing a set of images by a short text, as the command line does."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from liquid_ode.data.cifar10 import load_cifar10
from liquid_ode.data.folder import load_folder
from liquid_ode.data.images import DataError, ImageSet


def load_images(
    spec: str,
    root: Path | str | None = None,
    *,
    split: Literal["train", "test"] = "train",
    image_size: int = 32,
    limit: int | None = None,
) -> ImageSet:
    """The images that ``spec`` names: ``"cifar10"`` or ``"folder:PATH"``.

    Args:
        spec: which images.
        root: the data cache (``--data-root``), see :func:`load_cifar10`; unused by a folder.
        split: a folder has no split of its own, so it can only be ``"train"``.
        image_size: height and width, pixels; 32 for CIFAR-10.
        limit: read only the first so many images of a folder; CIFAR-10 is always read whole,
            since it is checked as a whole.

    Raises:
        DataError: the spec is unknown, or does not offer the split or the size, or its images
            cannot be had.
    """
    kind, _, path = spec.partition(":")
    if spec == "cifar10":
        if image_size != 32:
            raise DataError(
                f"CIFAR-10 has images of 32×32, but image_size={image_size} was asked for: leave "
                "it at 32, or use 'folder:PATH', which resizes."
            )
        return load_cifar10(root, split=split)
    if kind == "folder" and path:
        if split != "train":
            # The training images again would pass for held-out ones.
            raise DataError(
                f"{spec!r} has no {split} split: a folder is one set. Keep held-out images in a "
                "second folder and name that."
            )
        return load_folder(path, image_size=image_size, limit=limit)
    raise DataError(
        f"Unknown data {spec!r}. The forms are: 'cifar10' (fetched, or taken from the data "
        "cache) and 'folder:PATH' (every image file below PATH)."
    )
