"""Noise with a seed for each image, so that an image does not depend on the batch it is in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

SEED_LIMIT = 2**63


def resolve_seeds(seeds: int | Sequence[int] | None, n: int) -> list[int]:
    """One seed for each of n images.

    Args:
        seeds: None for 0, 1, …, n − 1; a number s for s, s + 1, …, s + n − 1; or n seeds.
        n: how many images.

    Raises:
        ValueError: where the seeds are not whole numbers in [0, 2⁶³), or not n of them.
    """
    if seeds is None:
        seeds = 0
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        resolved = list(range(seeds, seeds + n))
    else:
        try:
            numbers: Any = seeds  # a tensor or an array gives its numbers by tolist
            resolved = list(numbers.tolist() if hasattr(numbers, "tolist") else numbers)
        except TypeError as error:
            raise ValueError(f"seeds must be whole numbers, not {seeds!r}") from error
    if len(resolved) != n:
        raise ValueError(f"seeds must be one for each of the {n} images, not {len(resolved)}")
    for seed in resolved:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEED_LIMIT:
            raise ValueError(f"seeds must be whole numbers in [0, 2**63), not {seed!r}")
    return resolved


class SeededNoise:
    """Standard normal noise drawn from one generator per image.

    The i-th draw of an image depends on its seed and i alone: not on the batch, and not on the
    device, because it is drawn on the CPU in float32.

    Args:
        seeds: one seed for each image.
        shape: the shape of an image, (C, H, W).
        device: where the noise is used.
    """

    def __init__(
        self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape = tuple(shape)
        self._device = device

    def draw(self) -> Tensor:
        """The next noise of every image, float32 ``(len(seeds), C, H, W)``."""
        images = [torch.randn(self._shape, generator=g) for g in self._generators]
        return torch.stack(images).to(self._device)


def seeded_noise(
    seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"
) -> Tensor:
    """Standard normal noise with a seed for each image: the noise that samplers start from.

    Args:
        seeds: one whole number for each image.
        shape: the shape of an image, (C, H, W).
        device: where to put the noise; it is drawn on the CPU and is the same everywhere.

    Returns:
        float32 ``(len(seeds), C, H, W)``.

    Raises:
        ValueError: where a seed is not a whole number in [0, 2⁶³).
    """
    return SeededNoise(resolve_seeds(seeds, len(seeds)), shape, device).draw()
