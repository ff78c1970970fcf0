"""A folder of image files as an :class:`ImageSet`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from liquid_ode.data.images import DataError, ImageSet

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger("liquid_ode.data")

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def load_folder(path: Path | str, *, image_size: int = 32, limit: int | None = None) -> ImageSet:
    """Every image file below a folder, at any depth, in sorted order of path.

    Each is turned upright by its EXIF tag, laid on white where it is transparent, cropped to its
    central square and resized with antialiasing. All are held in memory: N · 3 · image_size²
    bytes. Names that begin with a dot are passed over.

    If every image lies in an immediate sub-folder of ``path``, the sub-folders are the classes,
    in sorted order; otherwise ``labels`` is None.

    Args:
        path: the folder.
        image_size: height and width of the result, pixels.
        limit: take only the first ``limit`` files of the order; the classes stay those of the
            whole folder.

    Returns:
        Images ``(N, 3, image_size, image_size)``.

    Raises:
        DataError: the folder is missing, cannot be read or has no images, or a file is broken.
        ValueError: ``image_size`` or ``limit`` is below 1.
    """
    if image_size < 1 or (limit is not None and limit < 1):
        raise ValueError(
            f"image_size and limit must be at least 1, got image_size={image_size}, limit={limit}"
        )
    folder = Path(path).expanduser()
    files = _image_files(folder)
    labels, class_names = _classes(files)
    chosen = files[:limit]
    logger.info("Reading %d images below %s ...", len(chosen), folder)
    images = torch.empty((len(chosen), 3, image_size, image_size), dtype=torch.uint8)
    for place, file in enumerate(chosen):
        pixels = _read_square(folder / file, image_size)  # (H, W, 3)
        images[place] = torch.from_numpy(pixels).permute(2, 0, 1)
    return ImageSet(
        images, None if labels is None else labels[:limit], class_names, name=folder.name
    )


def _image_files(folder: Path) -> list[Path]:
    """The image files below ``folder``, relative to it, sorted part by part."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"The image folder {folder} {what}. Name a folder that holds images.")

    def refuse(error: OSError) -> None:  # a folder skipped in silence would change the data
        raise DataError(
            f"The folder {error.filename} cannot be read ({error.strerror}). Give yourself "
            f"permission to read it, or move it out of {folder}."
        ) from error

    files = []
    entered = set()
    for parent, children, names in os.walk(folder, onerror=refuse, followlinks=True):
        children[:] = [child for child in children if not child.startswith(".")]
        place = os.path.realpath(parent)
        if place in entered:
            raise DataError(
                f"The folder {parent} is a link to {place}, which is read already: its images "
                "would count twice. Remove the link."
            )
        entered.add(place)
        files += [
            (Path(parent) / name).relative_to(folder)
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    if not files:
        raise DataError(
            f"The folder {folder} holds no images: expected files that end in "
            f"{', '.join(SUFFIXES)}, in it or below it."
        )
    return sorted(files, key=lambda file: file.parts)


def _classes(files: list[Path]) -> tuple[torch.Tensor | None, tuple[str, ...] | None]:
    """Labels (N,) and class names, where each file is ``class/name``; else None twice."""
    if any(len(file.parts) != 2 for file in files):
        return None, None
    names = tuple(sorted({file.parts[0] for file in files}))
    number = {name: place for place, name in enumerate(names)}
    return torch.tensor([number[file.parts[0]] for file in files]), names


def _read_square(file: Path, size: int) -> np.ndarray:
    """One file as uint8 (size, size, 3)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            image = _to_rgb(ImageOps.exif_transpose(opened))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.resize(
            (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
        )
        return np.array(square)
    except Exception as error:  # Pillow's decoders raise many kinds for a broken file
        raise DataError(
            f"The image file {file} cannot be read ({type(error).__name__}: {error}). Replace it "
            "with a whole copy, or move it out of the folder."
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB, transparency laid on white."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):  # Pillow would clip these to white
        raise ValueError(f"expected 8 bits a channel, got pixel mode {image.mode!r}")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")
