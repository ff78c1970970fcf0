"""Sets of images as one tensor, and the few pixel operations every user of them shares."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

CHANNELS = (1, 3, 4)  # grey; red, green, blue; and alpha


class DataError(RuntimeError):
    """Data that is missing, broken or not what was asked for; the message says what to do."""


@dataclass(frozen=True, eq=False)  # eq: tensors do not compare to one bool
class ImageSet(Dataset[Tensor]):
    """Images as one tensor, in memory or mapped from a file: a map-style dataset.

    An item is an image alone; the labels of a batch are ``labels[indices]``.

    Args:
        images: uint8 ``(N, C, H, W)``, values 0 to 255, where C is 1 (grey), 3 (RGB) or 4 (RGBA).
        labels: int64 ``(N,)``, or None where the images have no classes.
        class_names: the name of class ``k`` at place ``k``, or None.
        name: what the set is called in messages and records.

    Raises:
        ValueError: a tensor has the wrong shape or dtype, or a label lies outside its classes.
    """

    images: Tensor
    labels: Tensor | None = None
    class_names: tuple[str, ...] | None = None
    name: str = "images"

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in CHANNELS:
            raise ValueError(
                f"images must be uint8 of shape (N, C, H, W) with 1, 3 or 4 channels, got "
                f"{images.dtype} of shape {tuple(images.shape)}"
            )
        if labels is None:
            if self.class_names is not None:
                raise ValueError("class_names were given without labels: pass both or neither")
            return
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"labels must be int64 of shape ({len(images)},), got {labels.dtype} of shape "
                f"{tuple(labels.shape)}"
            )
        if len(labels) == 0:
            return
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or (self.class_names is not None and high >= len(self.class_names)):
            count = "any" if self.class_names is None else len(self.class_names)
            raise ValueError(f"labels run from {low} to {high}, outside the {count} classes")

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, index: int) -> Tensor:
        """Image ``index``: uint8 ``(C, H, W)``, a view of the set's own memory."""
        return self.images[index]

    def __getitems__(self, indices: Sequence[int] | Tensor) -> Tensor:
        """The images at ``indices`` in that order: uint8 ``(len(indices), C, H, W)``, a copy.

        A ``DataLoader`` calls this once per batch. Give it ``collate_fn=torch.as_tensor``: the
        batch is one tensor already.
        """
        return self.images[torch.as_tensor(indices, dtype=torch.int64)]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def crc32(self) -> str:
        """The CRC-32 of all pixels in order, as eight hexadecimal digits.

        It is taken piece by piece: a mapped file is read through once, and never held whole.
        """
        found, rows = 0, max(1, 2**24 // max(1, self.images[:1].numel()))
        for piece in self.images.split(rows):
            found = zlib.crc32(piece.contiguous().numpy().reshape(-1).data, found)
        return f"{found:08x}"

    @property
    def num_classes(self) -> int | None:
        """How many classes there are, or None where the images have no labels."""
        if self.labels is None:
            return None
        if self.class_names is not None:
            return len(self.class_names)
        return int(self.labels.max()) + 1 if len(self.labels) else 0


def to_model_range(images: Tensor) -> Tensor:
    """The model's scale, ``x / 127.5 - 1``: uint8 of any shape to float32 in [-1, 1].

    Raises:
        ValueError: ``images`` is not uint8 (it may have been scaled already).
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"expected uint8 pixels, got {images.dtype}: scale an image only once")
    return images.to(torch.float32) / 127.5 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """Pixels for saving and measuring: floats in [-1, 1], clamped there and rounded, to uint8.

    ``to_uint8(to_model_range(x))`` is exactly ``x``. A NaN has no pixel value and must not pass
    for an image.

    Raises:
        ValueError: ``images`` is not floating point, or holds NaN.
    """
    if not images.is_floating_point():
        raise ValueError(f"expected floating-point images in [-1, 1], got {images.dtype}")
    nans = int(images.isnan().sum())
    if nans:
        raise ValueError(f"{nans} of {images.numel()} values are NaN: the images are not usable")
    # Half and bfloat16 cannot hold x + 1 to 1/127.5 everywhere.
    scaled = (images.to(torch.float32).clamp(-1.0, 1.0) + 1.0) * 127.5
    return scaled.round().to(torch.uint8)


def random_flip(
    images: Tensor, generator: torch.Generator, *, rows: tuple[int, int] | None = None
) -> Tensor:
    """Mirror each image left to right with probability 1/2, each by its own draw.

    Args:
        images: ``(B, C, H, W)``, any dtype and device.
        generator: draws B numbers on its own device, so a CPU generator gives the same flips for
            images on any device.
        rows: (first, total) where these are images first, first + 1, … of a batch of ``total``:
            then it draws ``total`` numbers, and each image has that of its place.

    Returns:
        A new tensor of the same shape, dtype and device.

    Raises:
        ValueError: ``images`` is not four-dimensional.
    """
    if images.ndim != 4:
        raise ValueError(f"expected images of shape (B, C, H, W), got {tuple(images.shape)}")
    first, total = rows or (0, len(images))
    draws = torch.rand(total, generator=generator, device=generator.device)
    draws = draws[first : first + len(images)]  # (B,)
    flipped = (draws < 0.5).to(images.device).view(-1, 1, 1, 1)  # (B, 1, 1, 1)
    return torch.where(flipped, images.flip(-1), images)
