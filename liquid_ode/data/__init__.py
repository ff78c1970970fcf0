"""Images to train on and to measure against: CIFAR-10, a folder of files, or what Python has."""

from __future__ import annotations

from liquid_ode.data.cifar10 import load_cifar10
from liquid_ode.data.folder import load_folder
from liquid_ode.data.from_python import as_image_set
from liquid_ode.data.images import (
    CHANNELS,
    DataError,
    ImageSet,
    random_flip,
    to_model_range,
    to_uint8,
)
from liquid_ode.data.loading import load_images
from liquid_ode.data.sizes import parse_size, size_text, written_size

__all__ = [
    "CHANNELS",
    "DataError",
    "ImageSet",
    "as_image_set",
    "load_cifar10",
    "load_folder",
    "load_images",
    "parse_size",
    "random_flip",
    "size_text",
    "to_model_range",
    "to_uint8",
    "written_size",
]
