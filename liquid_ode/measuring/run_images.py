"""Images for scripts that measure or edit: of the kind that a run was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from liquid_ode.data import load_images, to_model_range
from liquid_ode.training import TrainConfig


@dataclass(frozen=True)
class RunImages:
    """Images of a run's data.

    Attributes:
        images: ``(N, C, H, W)`` in [-1, 1].
        labels: ``(N,)``, for a model with classes.
        source: where they are from, in words.
    """

    images: Tensor
    labels: Tensor | None
    source: str


def run_images(config: TrainConfig, count: int, data_root: str | Path | None = None) -> RunImages:
    """The first test images of CIFAR-10, or of a run on a folder, the first images of the folder.

    Args:
        config: the run's settings.
        count: how many.
        data_root: where the data set is cached; the run's own cache if None.

    Raises:
        ValueError: a number below 1, or more images than there are.
        DataError: the images cannot be had.
    """
    if count < 1:
        raise ValueError(f"the number of images must be at least 1, not {count}")
    root = config.data_root if data_root is None else data_root
    split: Literal["train", "test"] = "test" if config.data == "cifar10" else "train"
    data = load_images(
        config.data,
        root,
        split=split,
        image_size=config.image_size,
        image_channels=config.image_channels,
    )
    source = "test images" if split == "test" else "images of the training folder"
    if count > len(data):
        raise ValueError(f"there are {len(data)} {source}, and {count} were asked for")
    labels = data.labels[:count] if config.class_conditional and data.labels is not None else None
    return RunImages(to_model_range(data.images[:count]), labels, source)
