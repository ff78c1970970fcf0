"""The images on which a run is measured: those it was trained on, and others of the same kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liquid_ode.data import ImageSet, load_images
from liquid_ode.training import TrainConfig, load_config


@dataclass(frozen=True)
class OwnData:
    """What a run is measured on.

    Attributes:
        training: the images it was trained on.
        held_out: images of the same kind that it has not seen.
        kind: names both; runs of one kind can be compared.
    """

    training: ImageSet
    held_out: ImageSet
    kind: tuple[str, str, str]


def of_run(
    run_dir: Path, held_out: Path | None = None, data_root: str | Path | None = None
) -> OwnData:
    """The images of a run.

    Args:
        run_dir: the run.
        held_out: a folder of held-out images, for a run that was trained on a folder. CIFAR-10
            has its test images.
        data_root: where CIFAR-10 is cached; by default where the run found it.

    Raises:
        ValueError: the held-out images are missing, are of another kind than the run's, or were
            trained on.
        liquid_ode.data.DataError: images cannot be had.
    """
    config = load_config(run_dir)
    spec = held_out_spec(run_dir, config, held_out)
    root = data_root or config.data_root
    channels, *size = config.image_shape
    return load(
        config.data, spec, root, image_size=size, image_channels=channels, limit=config.limit
    )


def of_images(
    size: tuple[int, int],
    held_out: Path | None = None,
    training: Path | None = None,
    data_root: str | Path | None = None,
) -> OwnData:
    """The images with which images from files are compared: CIFAR-10's, or those of two folders.

    Args:
        size: (height, width) of the images.
        held_out: a folder in place of CIFAR-10's test images; ``training`` is then one too.
        training: a folder in place of CIFAR-10's training images.
        data_root: where CIFAR-10 is cached.

    Raises:
        ValueError: one folder is given without the other, or they have an image in common.
        liquid_ode.data.DataError: images cannot be had.
    """
    if (held_out is None) != (training is None):
        raise ValueError(
            "images from files are compared with CIFAR-10, or with the folders of --held-out and "
            "--training: give both or neither"
        )
    if held_out is None:
        return load("cifar10", None, data_root)
    return load(f"folder:{training}", f"folder:{held_out}", None, image_size=size)


def held_out_spec(run_dir: Path, config: TrainConfig, held_out: Path | None) -> str | None:
    """What ``load_images`` calls the held-out images of a run; None is the run's own test split."""
    if config.data == "cifar10":
        if held_out is not None:
            raise ValueError(
                f"{run_dir} was trained on CIFAR-10 and is measured on its test images; leave out "
                f"--held-out {held_out}"
            )
        return None
    if not config.data.startswith("folder:"):
        raise ValueError(
            f"{run_dir} was trained on {config.data}, which is not to be had here: measure it in "
            "Python, with Yardstick and denoising_loss"
        )
    if held_out is None:
        raise ValueError(
            f"{run_dir} was trained on {config.data}, and CIFAR-10 is no measure for it: name a "
            "folder of other images of that kind with --held-out"
        )
    return f"folder:{held_out}"


def load(
    data: str,
    held_out: str | None,
    root: str | Path | None,
    *,
    image_size: int | str | Sequence[int] = 32,
    image_channels: int = 3,
    limit: int | None = None,
) -> OwnData:
    """Both sets, checked to have no image in common."""
    shape: dict[str, Any] = {"image_size": image_size, "image_channels": image_channels}
    training = load_images(data, root, limit=limit, **shape)
    if limit is not None:
        labels = None if training.labels is None else training.labels[:limit]
        training = ImageSet(training.images[:limit], labels, training.class_names, training.name)
    if held_out is None:
        others = load_images(data, root, split="test", **shape)
    else:
        others = load_images(held_out, root, **shape)
        refuse_common(training, others)
    size = "x".join(map(str, training.images.shape[1:]))
    return OwnData(training, others, (data, held_out or "test", size))


def refuse_common(training: ImageSet, held_out: ImageSet) -> None:
    """Raise ValueError where a held-out image is a training image."""
    seen = {image.numpy().tobytes() for image in training.images}
    common = sum(image.contiguous().numpy().tobytes() in seen for image in held_out.images)
    if common:
        raise ValueError(
            f"{common} of the {len(held_out)} held-out images are training images: name a folder "
            "of others"
        )


def some(data: ImageSet, n: int) -> ImageSet:
    """The first ``n`` images, or all."""
    labels = None if data.labels is None else data.labels[:n]
    return ImageSet(data.images[:n], labels, data.class_names, data.name)
