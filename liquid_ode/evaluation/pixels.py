"""What the pixels alone tell of a set of images: their contrast."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from liquid_ode.evaluation.features import check_pixels


@dataclass(frozen=True)
class PixelStatistics:
    """The contrast of a set of images.

    Attributes:
        std: standard deviation of all values of all images, all channels together, in [-1, 1];
            0.503 for CIFAR-10's training images.
        saturated: the share of the values that are 0 or 255 of uint8, so at -1 or 1; 0.012 for
            CIFAR-10.
    """

    std: float
    saturated: float

    @staticmethod
    def of(images: Tensor) -> PixelStatistics:
        """The statistics of uint8 images ``(N, 3, H, W)``; exact, by their histogram.

        Raises:
            ValueError: another shape or type, or no images.
        """
        check_pixels("images", images)
        counts = torch.zeros(256, dtype=torch.int64)
        for part in images.split(1000):
            counts += torch.bincount(part.cpu().flatten(), minlength=256)
        shares = counts.double() / counts.sum()
        values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
        mean = (shares * values).sum()
        std = (shares * (values - mean).square()).sum().sqrt()
        return PixelStatistics(float(std), float(shares[0] + shares[-1]))
