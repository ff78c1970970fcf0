"""Folders of image files: which are read, how they are brought to one form, and what is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from liquid_ode.data import DataError, load_folder, load_images
from tests.data.made import noise, save


def test_flat_folder_is_sorted_and_unlabelled(tmp_path: Path) -> None:
    suffixes = ["b.png", "a.PNG", "c.bmp"]  # lossless, and not in order
    made = {
        name: save(noise(3, 32, 32, seed=i), tmp_path / name) for i, name in enumerate(suffixes)
    }
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._b.png").write_bytes(b"what macOS leaves beside a file")
    (tmp_path / ".thumbnails").mkdir()
    save(noise(3, 32, 32), tmp_path / ".thumbnails" / "b.png")
    dataset = load_folder(tmp_path)
    assert dataset.labels is None
    assert dataset.class_names is None
    assert torch.equal(dataset.images, torch.stack([made[name] for name in sorted(suffixes)]))


@pytest.mark.parametrize(
    "suffix", ["png", "jpg", "jpeg", "jfif", "webp", "bmp", "gif", "tif", "tiff", "avif"]
)
def test_each_file_type_is_read(tmp_path: Path, suffix: str) -> None:
    if f".{suffix}" not in Image.registered_extensions():
        pytest.skip(f"this Pillow reads no {suffix}")
    grey = torch.full((3, 40, 40), 200, dtype=torch.uint8)
    save(grey, tmp_path / f"image.{suffix}")
    images = load_folder(tmp_path, image_size=16).images
    assert images.shape == (1, 3, 16, 16)
    assert (images.int() - 200).abs().max() <= 2


def test_sub_folders_become_classes(tmp_path: Path) -> None:
    first = save(noise(3, 8, 8, seed=1), tmp_path / "cat" / "z.png")
    second = save(noise(3, 8, 8, seed=2), tmp_path / "dog" / "a.png")
    third = save(noise(3, 8, 8, seed=3), tmp_path / "dog" / "b.png")
    dataset = load_folder(tmp_path, image_size=8)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 1, 1]
    assert torch.equal(dataset.images, torch.stack([first, second, third]))
    fewer = load_folder(tmp_path, image_size=8, limit=1)
    assert len(fewer) == 1
    assert fewer.num_classes == 2  # the folder's classes, whatever the limit


@pytest.mark.parametrize("other", ["top.png", "dog/deep/a.png"])
def test_a_stray_file_is_named(
    tmp_path: Path, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(noise(3, 8, 8), tmp_path / "cat" / "a.png")
    save(noise(3, 8, 8), tmp_path / "dog" / "a.png")
    save(noise(3, 8, 8), tmp_path / other)
    dataset = load_folder(tmp_path, image_size=8)
    assert len(dataset) == 3
    assert dataset.labels is None
    assert f"no labels, since 1 of 3 lie in no class folder, first {other}" in caplog.text
    with pytest.raises(DataError, match=f"1 of 3 are elsewhere, first {other}: move them"):
        load_images(f"folder:{tmp_path}", image_size=8, labelled=True)


def test_a_flat_folder_has_no_labels_and_needs_no_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(noise(3, 8, 8), tmp_path / "a.png")
    assert load_folder(tmp_path, image_size=8).labels is None
    assert caplog.text == ""
    with pytest.raises(DataError, match=r"as cat/1\.png, and 1 of 1 are elsewhere, first a\.png"):
        load_folder(tmp_path, labelled=True)


def test_other_files_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(noise(3, 8, 8), tmp_path / "a.png")
    for name in ("a.heic", "b.HEIC", "c.txt", "README", ".hidden"):
        (tmp_path / name).touch()
    load_folder(tmp_path)
    assert f"Passed over in {tmp_path}: 2 .heic, 1 .txt, 1 without a suffix" in caplog.text
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"holds no images: .*; there are 2 \.heic, 1 \.txt"):
        load_folder(tmp_path)


@pytest.mark.parametrize("axis", [1, 2])
def test_the_central_square_is_kept(tmp_path: Path, axis: int) -> None:
    shape = [3, 32, 32]
    shape[axis] = 75
    image = save(noise(*shape), tmp_path / "a.png")
    assert torch.equal(load_folder(tmp_path).images[0], image.narrow(axis, 21, 32))


def test_rectangles_are_cut_to_their_shape(tmp_path: Path) -> None:
    wide = save(noise(3, 24, 80), tmp_path / "a.png")
    high = save(noise(3, 90, 32), tmp_path / "b.png")
    images = load_folder(tmp_path, image_size="24x32").images
    assert images.shape == (2, 3, 24, 32)
    assert torch.equal(images[0], wide[:, :, 24:56])
    assert torch.equal(images[1], high[:, 33:57])
    shrunk = load_folder(tmp_path, image_size=(12, 16)).images
    assert torch.equal(shrunk, load_folder(tmp_path, image_size="12x16").images)


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    rows = torch.arange(96)
    board = ((rows[:, None] + rows) % 2 * 255).to(torch.uint8).expand(3, 96, 96)
    save(board, tmp_path / "board.png")
    middle = load_folder(tmp_path).images[0, :, 2:-2, 2:-2]  # 3×3 pixels to 1: grey, not 0 or 255
    assert middle.min() > 90
    assert middle.max() < 165


def test_transparent_grey_palette_and_turned_files(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.png")
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "b.png", transparency=b"\xff\x80")
    Image.new("L", (8, 8), 77).save(tmp_path / "c.png")
    turned = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180°
    turned.save(tmp_path / "d.png", exif=exif)
    images = load_folder(tmp_path, image_size=8).images
    assert images[0].unique().tolist() == [255]
    assert images[1, :, 0, 0].tolist() == [127, 255, 127]
    assert images[2].unique().tolist() == [77]
    assert images[3, 0].flatten().tolist() == list(range(63, -1, -1))
    assert torch.equal(
        load_folder(tmp_path, image_size=8, image_channels=1).images[3], images[3, :1]
    )
    four = load_folder(tmp_path, image_size=8, image_channels=4).images
    assert four.shape == (4, 4, 8, 8)
    assert [four[i, :, 0, 0].tolist() for i in range(3)] == [
        [255, 0, 0, 0], [0, 255, 0, 128], [77, 77, 77, 255],
    ]  # fmt: skip


def test_grey_is_the_luma_of_colours(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / "a.png")
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "b.png")
    images = load_folder(tmp_path, image_size=8, image_channels=1).images
    luma = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert [images[i].unique().tolist() for i in range(2)] == [[luma], [255]]


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "float", "vanished"])
def test_a_broken_file_is_named(tmp_path: Path, kind: str) -> None:
    save(noise(3, 32, 32), tmp_path / "a-good.png")
    broken = tmp_path / ("cat.tif" if kind == "float" else "cat.png")
    if kind == "float":
        Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(broken)
    elif kind == "vanished":
        broken.symlink_to("nowhere.png")
    else:
        whole = noise(3, 32, 32)
        save(whole, broken)
        content = broken.read_bytes()
        part = {"truncated": content[: len(content) // 2], "text": b"hello", "empty": b""}
        broken.write_bytes(part[kind])
    reason = "not of 8 or 16 bits .*'F'" if kind == "float" else "broken .*Replace it with a whole"
    with pytest.raises(DataError, match=rf"1 of the 2 .*\n  - cat\.\w+: {reason}"):
        load_folder(tmp_path)


def test_all_bad_files_are_told_at_once(tmp_path: Path) -> None:
    for index in range(14):
        (tmp_path / f"{index:02}.png").write_bytes(b"hello")
    save(noise(3, 8, 8), tmp_path / "good.png")
    with pytest.raises(DataError) as caught:
        load_folder(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"14 of the 15 image files of {tmp_path} cannot be used:"
    assert [line[:10] for line in lines[1:11]] == [f"  - {index:02}.png" for index in range(10)]
    assert lines[11:] == ["  - and 4 more", "Correct them, or move them out of the folder."]


def test_an_image_that_is_too_large_is_told_its_size(tmp_path: Path) -> None:
    Image.new("1", (14_000, 14_000)).save(tmp_path / "huge.png")
    with pytest.raises(DataError, match=r"huge\.png: too large: 196 megapixels, where Pillow reads "
                       r"up to 179\. Make it smaller, or raise"):  # fmt: skip
        load_folder(tmp_path)
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")  # Pillow warns of this one
    assert load_folder(tmp_path).images.unique().tolist() == [0]


def test_home_folders_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DataError, match=r"folder ~nosuchuser/x begins with a home folder that is not"
    ):
        load_folder("~nosuchuser/x")
    with pytest.raises(DataError, match="The data cache ~nosuchuser begins"):
        load_images("cifar10", "~nosuchuser")
    monkeypatch.delenv("LIQUID_ODE_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def nobody(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nobody)
    with pytest.raises(DataError, match=r"HOME is not set.: name one by --data-root or"):
        load_images("cifar10")


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist\. Name a folder"):
        load_folder(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(DataError, match="is a file, not a folder"):
        load_folder(tmp_path / "notes.txt")
    with pytest.raises(DataError, match=r"holds no images: expected files that end in \.png"):
        load_folder(tmp_path)
    with pytest.raises(ValueError, match="at least 1"):
        load_folder(tmp_path, limit=0)


# Specs


def test_folder_spec(tmp_path: Path) -> None:
    image = save(noise(3, 16, 16), tmp_path / "a.png")
    assert torch.equal(load_images(f"folder:{tmp_path}", image_size=16).images[0], image)
    with pytest.raises(DataError, match="no test split"):
        load_images(f"folder:{tmp_path}", split="test")


@pytest.mark.parametrize("spec", ["mnist", "", "folder", "folder:", "cifar10:x"])
def test_an_unknown_spec_lists_the_forms(spec: str) -> None:
    with pytest.raises(DataError, match=r"'cifar10' .* 'folder:PATH'"):
        load_images(spec)


def test_cifar10_has_one_size(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="32x32 with 3 channels, but 64x64 with 3"):
        load_images("cifar10", tmp_path, image_size=64)
    with pytest.raises(DataError, match="but 32x32 with 1 were"):
        load_images("cifar10", tmp_path, image_channels=1)
