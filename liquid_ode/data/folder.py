"""A folder of image files as an :class:`ImageSet`."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from liquid_ode.data import folder_cache
from liquid_ode.data.decoding import Pixels, read_image
from liquid_ode.data.folder_cache import StaleError
from liquid_ode.data.images import DataError, ImageSet
from liquid_ode.data.listing import classes, list_images
from liquid_ode.data.places import data_root, expanded
from liquid_ode.data.progress import shown
from liquid_ode.data.sizes import check_channels, parse_size

logger = logging.getLogger("liquid_ode.data")

SMALL = 256  # so many files are read faster than it is worth keeping them
TOLD = 10  # of the bad files, by name
PIECE_BYTES = 2**26  # of decoded images that wait to be written

Shape = tuple[int, int, int]  # (C, H, W)


def load_folder(
    path: Path | str,
    *,
    image_size: int | str | Sequence[int] = 32,
    image_channels: int = 3,
    limit: int | None = None,
    labelled: bool = False,
    root: Path | str | None = None,
) -> ImageSet:
    """Every image file below a folder, at any depth, in sorted order of path.

    PNG, JPEG, WebP, BMP, GIF (the first frame), TIFF (the first page) and AVIF are read; other
    files are counted and passed over, in a warning of ``liquid_ode.data``; names that begin with a
    dot do not count. Each image is turned upright by its EXIF tag, 16-bit grey scaled to 8 bits,
    transparency laid on white where the result has no alpha; the largest central part with the
    shape of ``image_size`` is kept and resized with antialiasing.

    The files are decoded on all CPUs, and from some hundreds on kept in the data cache, N · C · H ·
    W bytes, which is mapped into memory: a set may be larger than it. The cache is used again
    while the files' names, sizes and times of change, and its own checksum, are the same.

    If every image lies in an immediate sub-folder of ``path``, the sub-folders are the classes,
    in sorted order; otherwise ``labels`` is None.

    Args:
        path: the folder.
        image_size: a side, or height and width (``"24x32"`` or a pair), pixels.
        image_channels: 1 (grey), 3 (RGB) or 4 (RGB and alpha).
        limit: take only the first ``limit`` files of the order; the classes stay those of the
            whole folder.
        labelled: refuse a folder whose sub-folders give no labels.
        root: the data cache, as in :func:`load_cifar10`.

    Returns:
        Images ``(N, C, H, W)``.

    Raises:
        DataError: the folder is missing, cannot be read or has no images; files cannot be used, of
            which the first ten are named; or an image has no label where it is to have one.
        ValueError: a number is out of range.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    size = parse_size(image_size)
    check_channels(image_channels)
    folder = expanded(path, "The image folder")
    listing = list_images(folder)
    labels, class_names = classes(listing, labelled=labelled)
    if listing.passed_over:
        logger.warning("Passed over in %s: %s", folder, listing.passed_over)
    files, shape = listing.files[:limit], (image_channels, *size)
    with warnings.catch_warnings():
        # Pillow's of large images and odd metadata; what it cannot read is told all the same.
        warnings.simplefilter("ignore")
        images = (
            _decoded(folder, files, shape)
            if len(files) <= SMALL
            else _cached(folder, files, shape, limit, data_root(root))
        )
    return ImageSet(
        images,
        None if labels is None else labels[:limit],
        class_names,
        name=folder.name or folder.resolve().name or "folder",
    )


def _cached(
    folder: Path, files: Sequence[Path], shape: Shape, limit: int | None, root: Path
) -> Tensor:
    """The decoded images out of the cache, filled first if need be; else in memory."""
    path = folder_cache.cache_path(root, folder, shape, limit)
    listing, whole = folder_cache.digest(folder, files), (len(files), *shape)
    try:
        return folder_cache.read(path, listing, whole)
    except FileNotFoundError:
        pass
    except (StaleError, OSError) as error:
        logger.info("The cache %s is made anew: %s", path, error)
    try:
        folder_cache.write(path, listing, whole, _decode(folder, files, shape))
        images = folder_cache.read(path, listing, whole)
        logger.info("Kept for the next time in %s (%.0f MB)", path, images.numel() / 1e6)
        return images
    except (StaleError, OSError) as error:  # a full or read-only disk: the files are good still
        logger.warning("The images of %s cannot be kept in %s: %s", folder, path, error)
        return _decoded(folder, files, shape)


def _decoded(folder: Path, files: Sequence[Path], shape: Shape) -> Tensor:
    """The images in memory."""
    images = torch.empty((len(files), *shape), dtype=torch.uint8)
    start = 0
    for piece in _decode(folder, files, shape):
        images[start : start + len(piece)] = torch.from_numpy(piece)
        start += len(piece)
    return images


def _decode(folder: Path, files: Sequence[Path], shape: Shape) -> Iterator[Pixels]:
    """The images in order, some at a time, each piece (n, C, H, W), decoded on all CPUs.

    Pillow decodes and resizes without Python's lock, so threads do: they need no second import of
    torch, and no pickling.

    Raises:
        DataError: after all have been tried, if some cannot be used.
    """
    channels, *size = shape
    failures: list[tuple[Path, DataError]] = []

    def read(file: Path) -> Pixels:
        try:
            return read_image(folder / file, (size[0], size[1]), channels)
        except DataError as error:
            failures.append((file, error))
            return np.zeros(shape, np.uint8)  # never returned: the failure is raised below

    workers = _cpus()
    step = max(2 * workers, min(1024, PIECE_BYTES // int(np.prod(shape))))

    def decoded(pool: ThreadPoolExecutor) -> Iterator[Pixels]:
        for start in range(0, len(files), step):
            yield from pool.map(read, files[start : start + step])

    logger.info("Reading %s images below %s ...", f"{len(files):,}", folder)
    with ThreadPoolExecutor(workers) as pool:
        piece = []
        for image in shown(decoded(pool), len(files), f"Reading {folder.name}"):
            piece.append(image)
            if len(piece) == step:
                yield np.stack(piece)
                piece = []
        if piece:
            yield np.stack(piece)
    if failures:
        raise DataError(_report(folder, len(files), failures))


def _report(folder: Path, count: int, failures: list[tuple[Path, DataError]]) -> str:
    failures.sort(key=lambda failure: failure[0].parts)
    told = [f"  - {file}: {error}" for file, error in failures[:TOLD]]
    if len(failures) > TOLD:
        told.append(f"  - and {len(failures) - TOLD} more")
    lines = "\n".join(told)
    return (
        f"{len(failures)} of the {count} image files of {folder} cannot be used:\n{lines}\n"
        "Correct them, or move them out of the folder."
    )


def _cpus() -> int:
    """The CPUs that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1
