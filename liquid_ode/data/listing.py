"""Which files of a folder are images, and which classes they belong to."""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from liquid_ode.data.images import DataError

logger = logging.getLogger("liquid_ode.data")

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif",
)  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """The image files below a folder.

    Args:
        folder: the folder.
        files: the images, relative to it, sorted part by part.
        others: how many files of each other suffix there are.
    """

    folder: Path
    files: tuple[Path, ...]
    others: dict[str, int]

    @property
    def passed_over(self) -> str:
        """The other files, as "5 .heic, 1 .txt"; empty where there are none."""
        return ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.others.items()))


def list_images(folder: Path) -> Listing:
    """The image files below ``folder``, at any depth; names that begin with a dot do not count.

    Raises:
        DataError: the folder is missing, or cannot be read, or holds no images.
    """
    from PIL import Image

    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"The image folder {folder} {what}. Name a folder that holds images.")

    def refuse(error: OSError) -> None:  # a folder skipped in silence would change the data
        raise DataError(
            f"The folder {error.filename} cannot be read ({error.strerror}). Give yourself "
            f"permission to read it, or move it out of {folder}."
        ) from error

    known = Image.registered_extensions()  # not every Pillow has .avif and .webp
    suffixes = tuple(suffix for suffix in SUFFIXES if suffix in known)
    files = []
    others: Counter[str] = Counter()
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
        for name in names:
            if name.startswith("."):
                continue
            if name.lower().endswith(suffixes):
                files.append((Path(parent) / name).relative_to(folder))
            else:
                others[Path(name).suffix.lower() or "without a suffix"] += 1
    found = Listing(folder, tuple(sorted(files, key=lambda file: file.parts)), dict(others))
    if not files:
        raise DataError(
            f"The folder {folder} holds no images: expected files that end in "
            f"{', '.join(suffixes)}, in it or below it; there are {found.passed_over or 'none'}."
        )
    return found


def classes(
    listing: Listing, *, labelled: bool
) -> tuple[torch.Tensor | None, tuple[str, ...] | None]:
    """Labels (N,) and class names, where each file is ``class/name``; else None twice.

    Raises:
        DataError: ``labelled``, and there are none; names the first file without a class.
    """
    folder, files = listing.folder, listing.files
    strays = [file for file in files if len(file.parts) != 2]
    if not strays:
        names = tuple(sorted({file.parts[0] for file in files}))
        number = {name: place for place, name in enumerate(names)}
        return torch.tensor([number[file.parts[0]] for file in files]), names
    first, some = strays[0], len(strays) < len(files)
    if labelled:
        raise DataError(
            f"Class labels need every image in a sub-folder of {folder} with the name of its "
            f"class, as cat/1.png, and {len(strays)} of {len(files)} are elsewhere, first {first}: "
            "move them there, or out of the folder"
        )
    if some:
        logger.warning(
            "The images of %s get no labels, since %d of %d lie in no class folder, first %s",
            folder, len(strays), len(files), first,
        )  # fmt: skip
    return None, None
