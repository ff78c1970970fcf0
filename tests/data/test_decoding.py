"""One image out of a file: what its bytes mean, whatever format and depth they are in."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from liquid_ode.data import DataError, load_folder
from liquid_ode.data.decoding import read_image
from tests.data.made import noise, save

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8)
DEEP = np.array([[0, 257, 1000, 65535]], np.uint16)


def tiff(bits: int, photometric: int, data: bytes, width: int) -> bytes:
    """An uncompressed grey TIFF of one row, written tag by tag."""
    short = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 277: 1, 278: 1}
    long = {273: 8 + 2 + 9 * 12 + 4, 279: len(data)}  # where the pixels begin, and their bytes
    tags = [(tag, 3, struct.pack("<HH", value, 0)) for tag, value in short.items()]
    tags += [(tag, 4, struct.pack("<I", value)) for tag, value in long.items()]
    entries = b"".join(
        struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in sorted(tags)
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"), [("png", {}), ("tif", {}), ("tif", {"compression": "tiff_lzw"})]
)
def test_images_are_turned_upright_once(
    tmp_path: Path, suffix: str, options: dict[str, Any], orientation: int, deep: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    values = RAMP.astype(np.uint16) * 257 if deep else RAMP
    Image.fromarray(values).save(tmp_path / f"a.{suffix}", exif=exif, **options)
    # The table of the EXIF standard: where the file's first row and first column are to be seen.
    upright = {
        1: RAMP, 2: RAMP[:, ::-1], 3: RAMP[::-1, ::-1], 4: RAMP[::-1],
        5: RAMP.T, 6: RAMP.T[:, ::-1], 7: RAMP.T[::-1, ::-1], 8: RAMP.T[::-1],
    }[orientation]  # fmt: skip
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}", (8, 8), 1)[0], upright)


@pytest.mark.parametrize(
    ("bits", "photometric", "data", "expected"),
    [
        (16, 1, DEEP.astype("<u2").tobytes(), [0, 1, 4, 255]),
        (16, 0, DEEP.astype("<u2").tobytes(), [255, 254, 251, 0]),  # white is zero
        (8, 0, bytes([0, 10, 200, 255]), [255, 245, 55, 0]),
        (1, 0, bytes([0b01100000]), [255, 0, 0, 255]),
        (
            12,
            1,
            bytes([0x00, 0x08, 0x00, 0x1F, 0xFF, 0xFF]),
            [0, 128, 32, 255],
        ),  # 0, 0x800, 0x1FF, 0xFFF
    ],
)
def test_black_and_white_are_where_the_file_says(
    tmp_path: Path, bits: int, photometric: int, data: bytes, expected: list[int]
) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(bits, photometric, data, 4))
    assert read_image(tmp_path / "a.tif", (1, 4), 1).ravel().tolist() == expected


def test_deep_grey_of_the_other_byte_order_and_with_a_transparent_value(tmp_path: Path) -> None:
    big = Image.frombytes("I;16B", (4, 1), DEEP.astype(">u2").tobytes())
    big.save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif", (1, 4), 1).ravel().tolist() == [0, 1, 4, 255]
    Image.fromarray(DEEP).save(tmp_path / "a.png")
    before, pixels, after = (tmp_path / "a.png").read_bytes().partition(b"IDAT")
    body = b"tRNS" + struct.pack(">H", 1000)  # not every Pillow writes this chunk
    chunk = struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "a.png").write_bytes(before[:-4] + chunk + before[-4:] + pixels + after)
    assert read_image(tmp_path / "a.png", (1, 4), 1).ravel().tolist() == [0, 1, 255, 255]
    assert read_image(tmp_path / "a.png", (1, 4), 4)[3].ravel().tolist() == [255, 255, 0, 255]


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (1000, 1), (3, 2)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_tiny_and_thin_images(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (50, 50, 50)).save(tmp_path / f"a.{suffix}", quality=100)
    for shape in ((32, 32), (8, 64)):
        found = read_image(tmp_path / f"a.{suffix}", shape, 3)
        assert found.shape == (3, *shape)
        assert np.abs(found.astype(int) - 50).max() <= 1


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LA", "P", "PA", "1", "HSV"])
def test_every_mode_of_pillow(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    image = Image.new("RGB", (8, 8), "white").convert(mode)
    (image.convert("RGB") if mode in ("HSV", "PA") else image).save(path)
    for channels in (1, 3, 4):
        assert read_image(path, (8, 8), channels).min() >= 254


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes here")
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="not a plain file"):
        read_image(tmp_path / "a.png", (8, 8), 3)


def test_a_truncated_jpeg_is_told_at_any_scale(tmp_path: Path) -> None:
    save(noise(3, 400, 400), tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    for size in (8, 400):
        with pytest.raises(DataError, match=r"broken \(OSError: image file is truncated"):
            read_image(tmp_path / "a.jpg", (size, size), 3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 257, 1000], [30000, 40000, 65400, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    images = load_folder(tmp_path, image_size="2x4").images
    expected = [0, 0, 1, 4, 117, 156, 254, 255]  # of x / 257
    assert images[0].flatten(1).tolist() == [expected] * 3


def test_only_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (10, 200)]
    for name in ("a.gif", "b.tif", "c.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    assert load_folder(tmp_path, image_size=8).images.unique().tolist() == [10]


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_read_at_a_smaller_scale(tmp_path: Path, orientation: int) -> None:
    rows, columns = np.mgrid[0:1024, 0:2048]
    smooth = np.stack([rows / 4, columns / 8, 255 - rows / 4], -1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(smooth)
    picture.save(tmp_path / "a.jpg", quality=95, exif=exif)
    size = (32, 64) if orientation == 1 else (64, 32)
    if orientation == 6:  # to be turned by 90° clockwise
        picture = picture.transpose(Image.Transpose.ROTATE_270)
    exact = np.asarray(picture.resize(size[::-1], Image.Resampling.BICUBIC)).astype(int)
    image = load_folder(tmp_path, image_size=size).images[0].permute(1, 2, 0).numpy()
    assert np.abs(image - exact).max() <= 3
    fast, slow = decoding_sizes(tmp_path / "a.jpg", size)
    assert slow == 1024 * 2048
    assert fast == slow // 8**2  # and still twice the result's sides, at least


def decoding_sizes(file: Path, size: tuple[int, int]) -> tuple[int, int]:
    """Pixels that are decoded for images of ``size``, and pixels of the file."""
    seen = []

    with Image.open(file) as image:
        whole = image.width * image.height
        load = type(image).load

        def spying(self: Image.Image) -> object:
            seen.append(self.width * self.height)
            return load(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(image), "load", spying)
            load_folder(file.parent, image_size=size)
    return seen[0], whole
