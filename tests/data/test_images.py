"""Image sets, the pixel operations on them, and folders of image files."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from liquid_ode.data import (
    DataError,
    ImageSet,
    load_folder,
    load_images,
    random_flip,
    to_model_range,
    to_uint8,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def save(image: torch.Tensor, path: Path) -> torch.Tensor:
    """Write (3, H, W) as a file and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(path)
    return image


# Pixels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_256_values_make_the_round_trip(dtype: torch.dtype) -> None:
    values = torch.arange(256, dtype=torch.uint8)
    scaled = to_model_range(values)
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled, torch.linspace(-1, 1, 256), atol=1e-6, rtol=0)
    assert torch.equal(to_uint8(scaled.to(dtype)), values)


def test_to_uint8_clamps_and_rounds() -> None:
    step = 1 / 127.5
    images = torch.tensor([-7.0, -1.0, -1 + 0.4 * step, -1 + 0.6 * step, 1.0, 7.0, torch.inf])
    assert to_uint8(images).tolist() == [0, 0, 0, 1, 255, 255, 255]


def test_bfloat16_is_widened_before_the_arithmetic() -> None:
    images = torch.linspace(-1, 1, 999).to(torch.bfloat16)
    assert torch.equal(to_uint8(images), to_uint8(images.float()))


def test_scaling_twice_and_nan_are_errors() -> None:
    with pytest.raises(ValueError, match="only once"):
        to_model_range(torch.zeros(2))
    with pytest.raises(ValueError, match="floating-point"):
        to_uint8(noise(2))
    with pytest.raises(ValueError, match="1 of 2 values are NaN"):
        to_uint8(torch.tensor([0.0, torch.nan]))


def test_flip_is_per_image_and_reproducible() -> None:
    images = noise(64, 3, 4, 5)
    flipped = random_flip(images, torch.Generator().manual_seed(3))
    again = random_flip(images, torch.Generator().manual_seed(3))
    other = random_flip(images, torch.Generator().manual_seed(4))
    assert torch.equal(flipped, again)
    assert not torch.equal(flipped, other)
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert torch.equal(same, ~mirrored)  # each image is the one or the other, whole
    assert 16 <= int(mirrored.sum()) <= 48


def test_flip_wants_a_batch() -> None:
    with pytest.raises(ValueError, match=r"\(B, C, H, W\)"):
        random_flip(noise(3, 4, 4), torch.Generator())


# ImageSet


def test_image_set_is_a_map_style_dataset() -> None:
    images = noise(10, 3, 4, 4)
    dataset = ImageSet(images, torch.arange(10) % 3, ("a", "b", "c"), "made")
    assert len(dataset) == 10
    assert dataset.num_classes == 3
    assert torch.equal(dataset[7], images[7])
    assert torch.equal(dataset.__getitems__([4, 1, 4]), images[[4, 1, 4]])
    assert torch.equal(dataset.__getitems__(torch.tensor([9, 0])), images[[9, 0]])
    assert dataset.__getitems__([]).shape == (0, 3, 4, 4)
    with pytest.raises(IndexError):
        dataset[10]


def test_data_loader_reads_whole_batches() -> None:
    images = noise(10, 3, 4, 4)
    loader = DataLoader(ImageSet(images), batch_size=4, collate_fn=torch.as_tensor)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert torch.equal(torch.cat(batches), images)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_checksum_is_that_of_all_bytes(channels: int) -> None:
    images = noise(3000, channels, 64, 48)  # more than one piece
    data = ImageSet(images)
    assert data.image_shape == (channels, 64, 48)
    assert int(data.crc32(), 16) == zlib.crc32(images.numpy().tobytes())
    turned = ImageSet(images[:5].transpose(2, 3))  # not contiguous
    assert int(turned.crc32(), 16) == zlib.crc32(turned.images.numpy().tobytes())
    assert ImageSet(images[:0]).crc32() == "00000000"


def test_num_classes_without_names_or_labels() -> None:
    assert ImageSet(noise(2, 3, 4, 4)).num_classes is None
    assert ImageSet(noise(2, 3, 4, 4), torch.tensor([0, 4])).num_classes == 5


@pytest.mark.parametrize(
    ("images", "labels", "names", "match"),
    [
        (torch.zeros(2, 3, 4, 4), None, None, "uint8"),
        (noise(2, 2, 4, 4), None, None, r"\(N, C, H, W\)"),
        (noise(2, 3, 4, 4), torch.zeros(3, dtype=torch.int64), None, r"shape \(2,\)"),
        (noise(2, 3, 4, 4), torch.zeros(2), None, "int64"),
        (noise(2, 3, 4, 4), torch.tensor([0, 1]), ("one",), "outside the 1 classes"),
        (noise(2, 3, 4, 4), torch.tensor([0, -1]), None, "run from -1"),
        (noise(2, 3, 4, 4), None, ("one",), "without labels"),
    ],
)
def test_image_set_rejects_what_does_not_fit(
    images: torch.Tensor,
    labels: torch.Tensor | None,
    names: tuple[str, ...] | None,
    match: str,
) -> None:
    with pytest.raises(ValueError, match=match):
        ImageSet(images, labels, names)


# Folders


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


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "bmp"])
def test_each_file_type_is_read(tmp_path: Path, suffix: str) -> None:
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
def test_mixed_depths_have_no_classes(tmp_path: Path, other: str) -> None:
    save(noise(3, 8, 8), tmp_path / "cat" / "a.png")
    save(noise(3, 8, 8), tmp_path / other)
    dataset = load_folder(tmp_path, image_size=8)
    assert len(dataset) == 2
    assert dataset.labels is None


@pytest.mark.parametrize("axis", [1, 2])
def test_the_central_square_is_kept(tmp_path: Path, axis: int) -> None:
    shape = [3, 32, 32]
    shape[axis] = 75
    image = save(noise(*shape), tmp_path / "a.png")
    assert torch.equal(load_folder(tmp_path).images[0], image.narrow(axis, 21, 32))


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


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "16-bit"])
def test_a_broken_file_is_named(tmp_path: Path, kind: str) -> None:
    save(noise(3, 32, 32), tmp_path / "a-good.png")
    broken = tmp_path / "cat.png"
    save(noise(3, 32, 32), broken)
    if kind == "16-bit":
        Image.fromarray(np.full((8, 8), 1000, np.uint16)).save(broken)
    else:
        whole = broken.read_bytes()
        part = {"truncated": whole[: len(whole) // 2], "text": b"hello", "empty": b""}
        broken.write_bytes(part[kind])
    with pytest.raises(DataError, match=r"cat\.png cannot be read .*Replace it"):
        load_folder(tmp_path)


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
    with pytest.raises(DataError, match="32×32"):
        load_images("cifar10", tmp_path, image_size=64)


def test_importing_stays_light() -> None:
    heavy = "[m for m in ('torchvision', 'PIL', 'matplotlib', 'accelerate') if m in sys.modules]"
    code = f"import sys, liquid_ode.data; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
