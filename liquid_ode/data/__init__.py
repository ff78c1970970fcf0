"""Images to train on and to measure against: CIFAR-10, always checked, or a folder of files."""

from __future__ import annotations

from liquid_ode.data.cifar10 import load_cifar10
from liquid_ode.data.folder import load_folder
from liquid_ode.data.images import DataError, ImageSet, random_flip, to_model_range, to_uint8
from liquid_ode.data.loading import load_images

__all__ = [
    "DataError",
    "ImageSet",
    "load_cifar10",
    "load_folder",
    "load_images",
    "random_flip",
    "to_model_range",
    "to_uint8",
]
