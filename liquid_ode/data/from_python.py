"""Images that Python already has, in whatever collection, as an :class:`ImageSet`."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from liquid_ode.data.decoding import fitted, natural_channels
from liquid_ode.data.images import CHANNELS, DataError, ImageSet
from liquid_ode.data.progress import shown
from liquid_ode.data.sizes import check_channels, parse_size, size_text


def as_image_set(
    dataset: Any,
    *,
    image_size: int | str | Sequence[int] | None = None,
    image_channels: int | None = None,
    value_range: tuple[float, float] | None = None,
    class_names: Sequence[str] | None = None,
    limit: int | None = None,
    name: str | None = None,
) -> ImageSet:
    """The images of a torch ``Dataset``, a list, or any other iterable, held in memory as bytes.

    An item is an image, or a pair (image, label) with a whole number or None for the label; all
    have a label or none has. What an image is:

    * a tensor: ``(C, H, W)`` or ``(H, W)``;
    * a NumPy array: ``(H, W, C)`` or ``(H, W)``;
    * a Pillow image: turned upright by its EXIF tag, brought to ``image_channels``, and cropped
      and resized to ``image_size`` where these are given.

    Nothing is guessed: tensors and arrays have the size and the channels asked for, or those of
    the first item; and their values are bytes unless ``value_range`` says what they are.

    ::

        as_image_set(torchvision.datasets.FashionMNIST("data"), image_size=32)
        as_image_set(CIFAR100("data", transform=ToTensor()), value_range=(0, 1))
        as_image_set((row["image"], row["label"]) for row in table)

    Args:
        dataset: the images. What has a length and an index is read by index, anything else from
            beginning to end. An ``ImageSet`` is returned as it is, if it fits.
        image_size: a side, or height and width, in pixels; None takes that of the first item.
        image_channels: 1, 3 or 4; None takes that of the first item.
        value_range: the values of black and white in tensors and arrays, which are rounded to
            bytes in between: (0, 1) for ``ToTensor()``, (-1, 1) for the model's scale. None for
            bytes.
        class_names: a name for each label; None takes the attribute ``classes`` of a dataset with
            labels, where this is a list of texts.
        limit: read only so many items.
        name: what the set is called; None takes the name of the dataset's class.

    Raises:
        DataError: an item is no image, or does not fit the others or what was asked for; there
            are no items; or values are not bytes and no ``value_range`` is given, or leave it.
        ValueError: an argument is out of range, or a label lies outside its classes.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if value_range is not None and not value_range[0] < value_range[1]:
        raise ValueError(f"value_range must be (black, white), black below white: {value_range}")
    if image_channels is not None:
        check_channels(image_channels)
    size = None if image_size is None else parse_size(image_size)
    if isinstance(dataset, ImageSet):
        return _as_it_is(dataset, size, image_channels, limit)

    items, count = _items(dataset, limit)
    rules = _Rules(size, image_channels, value_range)
    images: list[Tensor] = []
    labels: list[int | None] = []
    for index, item in enumerate(shown(items, count, "Reading images")):
        image, label = _pair(item, f"item {index}")
        images.append(rules.apply(image, f"item {index}"))
        labels.append(_label(label, f"item {index}"))
        if (labels[-1] is None) != (labels[0] is None):
            raise DataError(
                f"item {index} has {'a' if labels[0] is None else 'no'} label, unlike those "
                "before it: give all items a label, or none"
            )
    if not images:
        raise DataError("the dataset has no items: expected at least one image")
    if name is None:
        name = type(dataset).__name__ if isinstance(dataset, Dataset) else "images"
    if labels[0] is None:
        return ImageSet(torch.stack(images), name=name)
    names = _class_names(dataset) if class_names is None else tuple(class_names)
    return ImageSet(torch.stack(images), torch.tensor(labels), names, name)


def _as_it_is(
    data: ImageSet, size: tuple[int, int] | None, channels: int | None, limit: int | None
) -> ImageSet:
    found_channels, *found_size = data.image_shape
    if size not in (None, tuple(found_size)) or channels not in (None, found_channels):
        raise DataError(
            f"{data.name} has images of {size_text(*found_size)} with {found_channels} channels, "
            f"where {size_text(*(size or found_size))} with {channels or found_channels} were "
            "asked for: set image_size and image_channels to what it has"
        )
    if limit is None or limit >= len(data):
        return data
    labels = None if data.labels is None else data.labels[:limit]
    return ImageSet(data.images[:limit], labels, data.class_names, data.name)


def _items(dataset: Any, limit: int | None) -> tuple[Iterator[Any], int | None]:
    """The items to read, and how many they are where that is known."""
    if isinstance(dataset, (str, bytes, Mapping)):
        raise DataError(
            f"expected a dataset or another iterable of images, got {type(dataset).__name__}. "
            "A folder of files is load_folder(path), or data='folder:PATH'"
        )
    indexed = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if indexed and not isinstance(dataset, IterableDataset):
        count = min(len(dataset), len(dataset) if limit is None else limit)
        # By index, since a Dataset need not end in an IndexError.
        return (dataset[index] for index in range(count)), count
    if not isinstance(dataset, Iterable):
        raise DataError(
            f"expected a dataset or another iterable of images, got {type(dataset).__name__}: "
            "it has neither a length and an index nor an iterator"
        )
    return islice(iter(dataset), limit), limit


def _pair(item: Any, what: str) -> tuple[Any, Any]:
    """An item's image, and its label or None."""
    if isinstance(item, Mapping):
        keys = ", ".join(map(repr, item))
        raise DataError(
            f"{what} is a mapping with {keys}: say which is which by a generator, as "
            'as_image_set((row["image"], row["label"]) for row in dataset)'
        )
    if not isinstance(item, (tuple, list)):
        return item, None
    if len(item) not in (1, 2):
        raise DataError(f"{what} has {len(item)} parts: expected an image, or (image, label)")
    return item[0], None if len(item) == 1 else item[1]


def _label(value: Any, what: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, (Tensor, np.ndarray)) and value.reshape(-1).shape[0] == 1:
        value = value.item()
    try:
        return operator.index(value)
    except TypeError as error:
        shown_value = value if isinstance(value, (float, str)) else type(value).__name__
        raise DataError(
            f"{what} has the label {shown_value!r}: expected a whole number. Pass pairs with a "
            "number for the class, or the images alone"
        ) from error


def _class_names(dataset: Any) -> tuple[str, ...] | None:
    names = getattr(dataset, "classes", None)
    usable = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    return tuple(names) if usable and names else None


@dataclass
class _Rules:
    """What all images have in common: as asked for, or as the first one has it."""

    size: tuple[int, int] | None
    channels: int | None
    value_range: tuple[float, float] | None

    def apply(self, image: Any, what: str) -> Tensor:
        """An image as uint8 ``(C, H, W)`` that fits, on the CPU."""
        from PIL import Image

        try:
            if isinstance(image, Image.Image):
                if self.channels is None:
                    self.channels = natural_channels(image)
                pixels = torch.from_numpy(fitted(image, self.size, self.channels))
            else:
                pixels = self._bytes(_channels_first(image))
        except DataError as error:
            raise DataError(f"{what}: {error}") from error
        channels, *size = pixels.shape
        self.size = self.size or (size[0], size[1])
        self.channels = self.channels or channels
        if (channels, *size) != (self.channels, *self.size):
            raise DataError(
                f"{what} is {size_text(*size)} with {channels} channels, where "
                f"{size_text(*self.size)} with {self.channels} are expected. Transform it, give "
                "Pillow images with image_size and image_channels, or ask for what the data has"
            )
        return pixels

    def _bytes(self, values: Tensor) -> Tensor:
        if self.value_range is None:
            if values.dtype == torch.uint8:
                return values
            raise DataError(
                f"its values are {str(values.dtype).removeprefix('torch.')}, not bytes, so say "
                "what is black and what is white: as_image_set(dataset, value_range=(0, 1)), or "
                "(-1, 1)"
            )
        low, high = self.value_range
        values = values.to(torch.float64)
        levels = (values - low) * (255 / (high - low))
        if not bool(((levels >= -0.5) & (levels <= 255.5)).all()):  # nor is NaN within
            raise DataError(
                f"its values run from {values.min():.4g} to {values.max():.4g}, outside "
                f"value_range={self.value_range}: name the range that they have, or clamp them"
            )
        return levels.round().clamp(0, 255).to(torch.uint8)


def _channels_first(image: Any) -> Tensor:
    """A tensor or an array as a plain tensor ``(C, H, W)`` on the CPU."""
    if isinstance(image, Tensor):
        found = image.detach().cpu().as_subclass(Tensor)
        axes, last = "(C, H, W)", False
    elif isinstance(image, np.ndarray):
        found = torch.from_numpy(np.array(image))  # a copy: it may be read-only, or upside down
        axes, last = "(H, W, C)", True
    else:
        raise DataError(
            f"expected an image as a tensor, a NumPy array or a Pillow image, got "
            f"{type(image).__name__}"
        )
    if found.ndim == 2:
        found = found.unsqueeze(-1 if last else 0)
    if found.ndim == 3 and last:
        found = found.permute(2, 0, 1)
    if found.ndim != 3 or found.shape[0] not in CHANNELS or found.numel() == 0:
        kind, hint = "an array" if last else "a tensor", ""
        if image.ndim == 4:
            hint = ". It looks like a batch: pass the dataset, not its loader"
        elif image.ndim == 3 and image.shape[0 if last else -1] in CHANNELS:
            hint = ". Its channels are at the other end: permute it"
        raise DataError(
            f"{kind} must be {axes} with 1, 3 or 4 channels, or (H, W), got "
            f"{tuple(image.shape)}{hint}"
        )
    return found
