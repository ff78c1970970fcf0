"""The sample grids of a run."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from liquid_ode.diffusion import DDIM, GaussianDiffusion, classes_in_turn
from liquid_ode.training.build import shape_now
from liquid_ode.training.config import TrainConfig


class SamplingStopped(Exception):
    """Leaves the sampler between two of its steps."""


def sample_grid(
    config: TrainConfig,
    sampler: DDIM,
    diffusion: GaussianDiffusion,
    stopping: Callable[[], bool],
) -> Tensor:
    """The images of a run's grids, the same after every epoch: (N, C, H, W) in [-1, 1].

    Raises:
        SamplingStopped: ``stopping()`` said so between two steps.
        RuntimeError, ValueError: there are no usable images.
    """

    def check(*progress: object) -> None:
        if stopping():
            raise SamplingStopped

    labels = None
    if config.class_conditional:
        labels = classes_in_turn(config.samples, diffusion.num_classes)
    return sampler.sample(
        diffusion,
        config.samples,
        seeds=config.seed,  # as `liquid-ode sample --seed` counts them
        class_labels=labels,
        guidance_scale=config.sample_guidance,
        image_shape=shape_now(config, diffusion.model),
        callback=check,
    )
