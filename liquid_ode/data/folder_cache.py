"""The decoded images of a folder as one file, mapped into memory: decoded once, never held whole.

The file is NumPy's ``.npy``, uint8 ``(N, C, H, W)``, with a line of JSON behind the array that says
which files it was made of and has its checksum. A folder has one such file for each size, number of
channels and limit; it is replaced when the folder's listing is not that of the file any more.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from solvers.storage import atomic_file

FORMAT_VERSION = 1
_LONGEST_NOTE = 4096  # bytes

Pixels = npt.NDArray[np.uint8]


class StaleError(ValueError):
    """A cached file that is not what was asked for; the text says why."""


def cache_path(root: Path, folder: Path, shape: tuple[int, int, int], limit: int | None) -> Path:
    """Where the images of ``folder``, each of ``shape`` (C, H, W), are kept below ``root``."""
    channels, height, width = shape
    what = f"{folder.resolve()}|{shape}|{limit}"
    key = hashlib.blake2b(os.fsencode(what), digest_size=6).hexdigest()
    name = re.sub(r"[^\w.-]+", "-", folder.resolve().name)[:64] or "root"
    return root / "folders" / f"{name}-{height}x{width}x{channels}-{key}.npy"


def digest(folder: Path, files: Iterable[Path]) -> str:
    """A digest of the files' names, sizes and times of change."""
    found = hashlib.blake2b(digest_size=16)
    for file in files:
        try:
            facts = (folder / file).stat()
            size, changed = facts.st_size, facts.st_mtime_ns
        except OSError:  # told when it is read
            size = changed = -1
        found.update(b"%s\0%d\0%d\n" % (os.fsencode(file), size, changed))
    return found.hexdigest()


def write(
    path: Path, listing: str, shape: tuple[int, int, int, int], pieces: Iterable[Pixels]
) -> None:
    """Write the images ``pieces``, ``(N, C, H, W)`` in all, as the cache of the files ``listing``.

    Raises:
        OSError: it could not be written; a file that was there is kept.
    """
    checksum = 0
    with atomic_file(path) as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            data = np.ascontiguousarray(piece).data
            checksum = zlib.crc32(data, checksum)
            file.write(data)
        note = {"format_version": FORMAT_VERSION, "listing": listing, "crc32": checksum}
        file.write(b"\n" + json.dumps(note).encode() + b"\n")


def read(path: Path, listing: str, shape: tuple[int, int, int, int]) -> Tensor:
    """The images of a cache, mapped: uint8 ``(N, C, H, W)``. Changes to them stay in memory.

    Raises:
        StaleError: the file is of another listing or version, or damaged.
        OSError: it cannot be read, or is not there.
    """
    note = _note(path)
    if note.get("format_version") != FORMAT_VERSION or note.get("listing") != listing:
        raise StaleError("the folder's files have changed")
    try:
        images = np.load(path, mmap_mode="c")
    except ValueError as error:
        raise StaleError(f"it is damaged ({error})") from error
    if images.dtype != np.uint8 or images.shape != shape:
        raise StaleError("it is damaged: its images have another shape")
    found = torch.from_numpy(images)
    checksum = 0
    for piece in found.split(max(1, 2**24 // found[0].numel())):
        checksum = zlib.crc32(piece.numpy().reshape(-1).data, checksum)
    if checksum != note.get("crc32"):
        raise StaleError("it is damaged: its images do not have their checksum")
    return found


def _note(path: Path) -> dict[str, Any]:
    """The line behind the array."""
    with path.open("rb") as file:
        file.seek(-min(_LONGEST_NOTE, path.stat().st_size), os.SEEK_END)
        end = file.read()
    try:
        note = json.loads(end.rstrip(b"\n").rpartition(b"\n")[2])
    except ValueError as error:  # no JSON, or not even text
        raise StaleError("it is damaged: there is no line of JSON at its end") from error
    if not isinstance(note, dict):
        raise StaleError("it is damaged: the line at its end is no JSON object")
    return note
