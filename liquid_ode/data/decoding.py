"""One image, from a file or from Pillow, as bytes of a given size and number of channels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from liquid_ode.data.images import DataError

if TYPE_CHECKING:
    from PIL import Image

Pixels: TypeAlias = npt.NDArray[np.uint8]  # (C, H, W)

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_TURNED = (5, 6, 7, 8)  # the EXIF orientations that exchange height and width
_ORIENTATION = 0x0112
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF; photometric 0 says that white is 0


def read_image(file: Path, size: tuple[int, int], channels: int) -> Pixels:
    """The (first) image of a file, as :func:`fitted` gives it.

    A JPEG is decoded at the smallest of its own scales that still has twice the pixels needed.

    Raises:
        DataError: the file cannot be used; says why and what to do, but not which file it is.
    """
    from PIL import Image

    try:
        if file.exists() and not file.is_file():
            raise DataError("not a plain file. Move it out")  # a pipe would wait for a writer
        with Image.open(file) as opened:
            if opened.format == "JPEG":
                opened.draft(None, _draft_size(opened, size))
            return fitted(opened, size, channels)
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        pixels = f"{int(found[1]) / 1e6:.0f} megapixels" if found else "too many pixels"
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise DataError(
            f"too large: {pixels}, where Pillow reads up to {limit:.0f}. Make it smaller, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        ) from error
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds for a broken file
        reason = str(error).replace(str(file), file.name)
        raise DataError(
            f"broken ({type(error).__name__}: {reason}). Replace it with a whole copy"
        ) from error


def fitted(image: Image.Image, size: tuple[int, int] | None, channels: int) -> Pixels:
    """An image as uint8 ``(channels, *size)``.

    It is turned upright by its EXIF tag; 16-bit grey is scaled to 8 bits; transparency is laid on
    white where the result has no alpha; the largest central part with the shape of ``size`` is
    kept, and resized with antialiasing.

    Args:
        image: any image of Pillow's.
        size: (height, width) of the result; None for the image's own.
        channels: 1, 3 or 4.

    Raises:
        DataError: the image has neither 8 nor 16 bits a channel.
    """
    from PIL import Image, ImageOps

    upright = _eight_bits(image)
    if image.format != "TIFF":  # which Pillow has turned as it loaded it
        upright = ImageOps.exif_transpose(upright)
    upright = _with_channels(upright, channels)
    if size is not None:
        upright = upright.resize(
            size[::-1], Image.Resampling.BICUBIC, box=_central(upright.size, size)
        )
    # A copy, for torch: what Pillow gives is read-only.
    pixels = np.array(upright).reshape(upright.height, upright.width, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def natural_channels(image: Image.Image) -> int:
    """How many channels an image has by itself.

    Raises:
        DataError: it has none of the three numbers, so that somebody has to choose.
    """
    found = {"1": 1, "L": 1, "RGB": 3, "RGBA": 4}.get(image.mode)
    if image.mode.startswith("I;16"):
        found = 1
    if found is None or "transparency" in image.info:
        raise DataError(f"it has pixel mode {image.mode!r}: choose image_channels=1, 3 or 4 for it")
    return found


def _central(own: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest central box of (width, height) ``own`` with the shape of (height, width)."""
    width, height = own
    scale = min(width / size[1], height / size[0])
    wide, high = max(1, round(size[1] * scale)), max(1, round(size[0] * scale))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def _draft_size(image: Image.Image, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) below which a JPEG must not be decoded: twice the box that is resized."""
    height, width = size
    if image.getexif().get(_ORIENTATION) in _TURNED:
        height, width = width, height
    scale = min(image.width / width, image.height / height)  # of the box to the result
    shrink = max(1.0, scale / 2)
    return int(image.width / shrink), int(image.height / shrink)


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel; grey of more bits is scaled from all of their range.

    (Pillow leaves such grey as it is in the file, whose tags say what its black and white are.)
    """
    from PIL import Image

    # Pillow before 11 gives 16-bit PNG as "I", which elsewhere is 32 bits without a known white.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        values = np.asarray(image).astype(np.float32)  # 0 to 65535
        tags = getattr(image, "tag_v2", {})
        white = 2.0 ** tags.get(_BITS, (16,))[0] - 1
        levels = (values * (255 / white)).round().clip(0, 255).astype(np.uint8)
        grey = Image.fromarray(255 - levels if tags.get(_PHOTOMETRIC) == 0 else levels)
        clear = image.info.get("transparency")
        if isinstance(clear, int):  # the one value that is transparent
            alpha = np.where(values == clear, 0, 255).astype(np.uint8)
            grey = Image.merge("LA", (grey, Image.fromarray(alpha)))
        grey.info["exif"] = image.info.get("exif", b"")
        return grey
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"not of 8 or 16 bits a channel but of pixel mode {image.mode!r}, whose white is not "
            "known. Save it with 8 bits"
        )
    return image


def _with_channels(image: Image.Image, channels: int) -> Image.Image:
    from PIL import Image

    clear = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if clear and channels < 4:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert(_MODES[channels])
