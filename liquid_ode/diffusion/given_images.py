"""Images that are given to be inverted, edited or measured: what is asked of them, and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from liquid_ode.diffusion.gaussian import GaussianDiffusion
from liquid_ode.diffusion.guidance import Guidance
from liquid_ode.diffusion.sampling import GuidedDenoiser, Progress, guided_batches

Labels = Tensor | Sequence[int] | int | None
Callback = Callable[[Progress], None] | None

_ROUNDING = 1e-3  # by how much images may leave [-1, 1], as those of a sampler in half precision do


class GivenBatch(NamedTuple):
    """A part of the images that were given, on the model's device."""

    part: slice
    """which of the images"""
    images: Tensor
    """float32 ``(B, C, H, W)``"""
    denoise: GuidedDenoiser
    """the denoiser of these, with their labels"""


def check_images(images: Tensor, diffusion: GaussianDiffusion, name: str = "images") -> None:
    """Check images that are given to a trained diffusion.

    Raises:
        ValueError: where they are no batch of finite floating-point images, or leave [-1, 1]
            where the diffusion clips to it.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(
            f"{name} must be a floating-point tensor, in [-1, 1], not {got}: "
            "convert bytes with x.float() / 127.5 - 1"
        )
    if images.ndim < 2 or images.numel() == 0:
        raise ValueError(f"{name} must be a batch (N, C, H, W), not {tuple(images.shape)}")
    low, high = (float(value) for value in torch.aminmax(images))
    if not (low > -torch.inf and high < torch.inf):  # also where one is NaN
        raise ValueError(f"{name} must be finite, but hold NaN or infinity")
    if diffusion.clip_sample and max(-low, high) > 1 + _ROUNDING:
        raise ValueError(
            f"{name} must lie in [-1, 1], as the model's do; they go from {low:g} to {high:g}: "
            "convert values of 0 to 255 with x / 127.5 - 1"
        )


@contextmanager
def given_batches(
    diffusion: GaussianDiffusion,
    images: Tensor,
    *,
    class_labels: Labels,
    guidance: Guidance,
    batch_size: int | None,
    callback: Callback = None,
) -> Iterator[Iterator[GivenBatch]]:
    """The images batch by batch, with the model in evaluation mode for as long as it lasts.

    Args:
        diffusion: the trained model.
        images: ``(N, C, H, W)``.
        class_labels: one label for all, or one for each image; None for no class.
        guidance: of the denoiser.
        batch_size: how many at a time; None for all at once.
        callback: called after each evaluation of the denoiser.

    Raises:
        ValueError: where an argument is not as described.
    """
    check_images(images, diffusion)
    with guided_batches(
        diffusion,
        len(images),
        class_labels=class_labels,
        guidance=guidance,
        batch_size=batch_size,
        callback=callback,
    ) as batches:
        yield (
            GivenBatch(part, images[part].to(diffusion.device, torch.float32), denoise)
            for part, denoise in batches
        )
