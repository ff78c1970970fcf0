"""The file of decoded images: used again while the folder is the same, and never when damaged."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from liquid_ode.data import DataError, folder, load_folder
from tests.data.made import noise, save

COUNT = 5


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that counts as large."""
    monkeypatch.setattr(folder, "SMALL", 2)
    for index in range(COUNT):
        save(noise(3, 8, 8, seed=index), tmp_path / "images" / f"{index}.png")
    return tmp_path / "images"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded, as they are."""
    names: list[str] = []
    real = folder.read_image

    def spying(file: Path, *rest: object) -> object:
        names.append(file.name)
        return real(file, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(folder, "read_image", spying)
    return names


def load(images: Path, **options: object) -> torch.Tensor:
    found = load_folder(images, image_size=8, root=images.parent / "root", **options)  # type: ignore[arg-type]
    return found.images


def cached(images: Path) -> list[Path]:
    return sorted((images.parent / "root").rglob("*"))[1:]


def test_files_are_decoded_once(images: Path, decoded: list[str]) -> None:
    expected = torch.stack([noise(3, 8, 8, seed=index) for index in range(COUNT)])
    assert torch.equal(load(images), expected)
    assert sorted(decoded) == [f"{index}.png" for index in range(COUNT)]
    again = load(images)
    assert torch.equal(again, expected)
    assert len(decoded) == COUNT
    (file,) = cached(images)
    assert file.name.startswith("images-8x8x3-")
    assert np.array_equal(np.load(file), expected.numpy())  # any program can read it
    again[0] = 0  # a change stays with who makes it
    assert torch.equal(load(images), expected)


def test_each_form_has_a_file_of_its_own(images: Path) -> None:
    load(images)
    assert load(images, image_channels=1).shape == (COUNT, 1, 8, 8)
    assert load(images, limit=3).shape == (3, 3, 8, 8)
    assert load(images).shape == (COUNT, 3, 8, 8)
    assert len(cached(images)) == 3


def add(images: Path) -> None:
    save(noise(3, 8, 8), images / "9.png")


def remove(images: Path) -> None:
    (images / "1.png").unlink()


def rename(images: Path) -> None:
    (images / "1.png").rename(images / "8.png")


def touch(images: Path) -> None:
    os.utime(images / "1.png", ns=(1, 1))


def replace(images: Path) -> None:
    before = (images / "1.png").stat()
    Image.new("RGB", (8, 8)).save(images / "1.png")
    os.utime(images / "1.png", ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [add, remove, rename, touch, replace])
def test_a_changed_folder_is_read_anew(
    change: Callable[[Path], None], images: Path, decoded: list[str], tmp_path: Path
) -> None:
    load(images)
    decoded.clear()
    change(images)
    found = load(images)
    assert len(decoded) == len(list(images.iterdir()))
    assert torch.equal(found, load_folder(images, image_size=8, root=tmp_path / "other").images)
    assert len(cached(images)) == 1  # the old one is replaced


def flip_a_pixel(data: bytes) -> bytes:
    return data[:300] + bytes([data[300] ^ 1]) + data[301:]


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_pixel,
        lambda data: data[:-200],
        lambda data: data[:-1] + b"\xff",
        lambda data: data.replace(b"(5, 3, 8, 8)", b"(5, 3, 8, 9)"),
        lambda data: data.replace(b"crc32", b"crc33"),
        lambda data: b"\xff" * len(data),
        lambda data: data + b"7\n",
        lambda data: b"",
    ],
)
def test_a_damaged_file_is_made_anew(
    damage: Callable[[bytes], bytes],
    images: Path,
    decoded: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = load(images).clone()
    (file,) = cached(images)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert file.read_bytes() != whole
    decoded.clear()
    with caplog.at_level(logging.INFO, "liquid_ode.data"):
        assert torch.equal(load(images), expected)
    assert len(decoded) == COUNT
    assert f"The cache {file} is made anew: " in caplog.text
    assert file.read_bytes() == whole


def test_a_full_disk_keeps_nothing_but_the_images_are_used(
    images: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "fsync", full)
    assert load(images).shape == (COUNT, 3, 8, 8)
    assert caplog.text.count("cannot be kept") == 1
    assert cached(images) == []


def test_bad_files_leave_no_cache(images: Path) -> None:
    (images / "2.png").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"1 of the 5 .*\n  - 2\.png: broken"):
        load(images)
    assert cached(images) == []


def test_pieces_follow_one_another(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "PIECE_BYTES", 1)
    monkeypatch.setattr(folder, "_cpus", lambda: 1)  # pieces of two
    expected = torch.stack([noise(3, 8, 8, seed=index) for index in range(COUNT)])
    assert torch.equal(load(images), expected)
    assert torch.equal(load(images), expected)


def test_progress_is_told_where_there_is_no_terminal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from liquid_ode.data import progress

    times = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(times)))
    with caplog.at_level(logging.INFO, "liquid_ode.data"):
        assert list(progress.shown("abcdefg", 7, "Reading")) == list("abcdefg")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["Reading: 3 of 7", "Reading: 6 of 7"]
