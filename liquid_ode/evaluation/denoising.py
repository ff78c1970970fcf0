"""The denoising loss on held-out images, by noise level."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from liquid_ode.data import ImageSet, to_model_range
from liquid_ode.diffusion import GaussianDiffusion
from liquid_ode.evaluation.noisy_images import NoisyImages


@dataclass(frozen=True)
class DenoisingLoss:
    """Mean squared error of the predicted noise, E ‖ε̂ − ε‖² / (C H W), unweighted and unclipped.

    Attributes:
        levels: over equal parts of the time steps, lowest noise first.
        mean: over all time steps.
        standard_error: of the mean, over the images.
        images: how many images.
    """

    levels: tuple[float, ...]
    mean: float
    standard_error: float
    images: int

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return asdict(self)


def denoising_loss(
    diffusion: GaussianDiffusion,
    images: ImageSet,
    *,
    levels: int = 5,
    seed: int = 0,
    batch_size: int = 250,
) -> DenoisingLoss:
    """The loss of a model on images that it was not trained on.

    Each image meets one time step, uniform over all, and one noise. Models of schedules with
    equal numbers of steps meet the same with the same seed, so that their difference is far
    surer than either value. A class-conditional model is given the labels.

    Args:
        diffusion: the model; it is put in evaluation mode meanwhile.
        images: of the same kind and size as the training images.
        levels: parts into which the time steps are divided.
        seed: of time steps and noise.
        batch_size: images at a time.

    Raises:
        ValueError: there are too few images for so many levels, a class-conditional model meets
            images without labels or with other classes, or a prediction is NaN or infinite.
    """
    labels = None
    classes = diffusion.num_classes
    if classes is not None:
        if images.labels is None or images.num_classes != classes:
            raise ValueError(
                f"the model has {classes} classes and the held-out images "
                f"{images.num_classes or 'none'}: give images of the same classes"
            )
        labels = images.labels
    steps = diffusion.schedule.num_steps
    noisy = NoisyImages.draw(to_model_range(images.images), steps, seed, labels)
    errors = noisy.errors(diffusion, batch_size).double()  # (N,)
    if not bool(errors.isfinite().all()):
        raise ValueError("the model predicts NaN or infinite noise: look at its weights")
    level = noisy.t * levels // steps  # (N,)
    counts = torch.bincount(level, minlength=levels)
    if int(counts.min()) < 1 or len(errors) < 2:
        raise ValueError(
            f"{len(errors)} held-out images are too few for {levels} noise levels: give more"
        )
    means = [float(errors[level == index].mean()) for index in range(levels)]
    error = float(errors.std()) / len(errors) ** 0.5
    return DenoisingLoss(tuple(means), float(errors.mean()), error, len(errors))
