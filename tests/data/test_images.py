"""Image sets, and the pixel operations on them."""

from __future__ import annotations

import subprocess
import sys
import zlib

import pytest
import torch
from torch.utils.data import DataLoader

from liquid_ode.data import ImageSet, random_flip, to_model_range, to_uint8
from tests.data.made import noise

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


def test_importing_stays_light() -> None:
    heavy = "[m for m in ('torchvision', 'PIL', 'matplotlib', 'accelerate') if m in sys.modules]"
    code = f"import sys, liquid_ode.data; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
