"""CIFAR-10 as six checked files of records, the form in which it is cached.

A record is the label byte and then 3072 bytes of pixels, channel by channel and row by row: the
form of the official binary distribution, so that its checksums apply whatever the source was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from liquid_ode.data.images import DataError
from solvers.storage import write_atomically

Records: TypeAlias = npt.NDArray[np.uint8]  # (N, 3073)
Batch: TypeAlias = tuple[str, Records]  # its name, such as "data_batch_1", and its records
Batches: TypeAlias = Generator[Batch, None, None]  # one at a time: 30 MB, not 180, in memory

TRAIN = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
TEST = ("test_batch",)
RECORD_BYTES = 1 + 3 * 32 * 32
FOLDER = "cifar-10-batches-bin"

MD5 = {
    "data_batch_1": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch": "803d5f7f4d78ea53de84dbe85f74fb6d",
}


class NotCachedError(DataError):
    """The cache does not hold a batch: no fault, only a reason to look elsewhere."""


def batch_path(root: Path, name: str) -> Path:
    """Where the batch ``name`` lies in the cache."""
    return root / FOLDER / f"{name}.bin"


def check_md5(data: bytes | memoryview, expected: str, what: str) -> None:
    """Raise a DataError that tells what, expected, found and remedy where the MD5 is another."""
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DataError(
            f"{what} is corrupt: expected MD5 {expected}, found {found}. It was not used; delete "
            "it or put a whole copy in its place"
        )


def read_cache(root: Path, names: tuple[str, ...]) -> Batches:
    """The batches ``names`` out of the cache, each checked as it is read.

    Raises:
        NotCachedError: a batch is not there.
        DataError: a batch is corrupt.
    """
    absent = [f"{name}.bin" for name in names if not batch_path(root, name).is_file()]
    if absent:
        raise NotCachedError(f"no {', '.join(absent)}")
    for name in names:
        path = batch_path(root, name)
        data = np.fromfile(path, np.uint8)
        check_md5(data.data, MD5[name], str(path))
        yield name, data.reshape(-1, RECORD_BYTES)


def write_batch(root: Path, name: str, records: Records) -> None:
    """Put a batch in the cache whole, or not at all."""
    write_atomically(batch_path(root, name), records.data)
