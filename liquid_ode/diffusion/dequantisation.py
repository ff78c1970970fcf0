"""From pixels of 256 values to a density: what makes bits per dimension of nats.

A diffusion has a density p of x̄ = x0 + σ ε at its first noise level σ, and a pixel has one of the
values v_k = k/127.5 − 1. Both ways here give an upper bound of −log P(image) in expectation,

    −log P(image) <= E[−log p(x̄) + correction],

P being the probability that the diffusion followed by the step from x̄ to values gives the image.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

BIN = 2 / 255  # between two values of a pixel
_CHUNK = 16  # values at a time, for memory


class Dequantised(NamedTuple):
    """Images with noise in place of their values' steps."""

    x_bar: Tensor
    """x̄, float32 ``(B, C, H, W)``"""
    correction: Tensor
    """nats to add to −log p(x̄), float64 ``(B,)``"""


class Dequantisation(ABC):
    """Draws x̄ for an image."""

    @abstractmethod
    def draw(self, images: Tensor, sigma: float, noise: Tensor) -> Dequantised:
        """x̄ and its correction.

        Args:
            images: of values v_k, float32 ``(B, C, H, W)``.
            sigma: the first noise level of the diffusion.
            noise: standard normal, of the images' shape.
        """


@dataclass(frozen=True)
class UniformDequantisation(Dequantisation):
    """x̄ = x0 + u, u uniform over a value's bin of width Δ = 2/255; the correction is −log Δ.

    An image is what x̄ rounds to. The model was trained on images with Gaussian noise of at least
    the first σ, not on these, so that :class:`GaussianDequantisation` fits it better.

    Reference: Theis et al. 2016, A note on the evaluation of generative models, eq. 3 to 6.
    """

    def draw(self, images: Tensor, sigma: float, noise: Tensor) -> Dequantised:
        uniform = torch.special.ndtr(noise.double()) - 0.5  # in (−½, ½)
        nats = -math.log(BIN) * images[0].numel()
        correction = torch.full(images.shape[:1], nats, dtype=torch.float64, device=images.device)
        return Dequantised(images + (BIN * uniform).to(images), correction)


@dataclass(frozen=True)
class GaussianDequantisation(Dequantisation):
    """x̄ = x0 + σ ε with the diffusion's first σ, and a discretised last step back to values.

    A pixel has value v_k with probability P(k | x̄) = N(x̄; v_k, σ²)/Σ_j N(x̄; v_j, σ²). With
    q(x̄ | image) the density that x̄ is drawn from, the correction log q − log P is, for a pixel,
    log Σ_j N(x̄; v_j, σ²): where σ is of the size of a bin, again −log Δ away from black and white.

    Reference: Kingma et al. 2021, Variational diffusion models, section 3.3 (eq. 8 and 10).
    """

    def draw(self, images: Tensor, sigma: float, noise: Tensor) -> Dequantised:
        x_bar = images + sigma * noise  # (B, C, H, W)
        values = torch.arange(256, dtype=torch.float64, device=images.device) / 127.5 - 1
        exact = x_bar.double().flatten(1)  # (B, d)
        total = torch.full_like(exact, -math.inf)
        for part in values.split(_CHUNK):
            near = -0.5 * ((exact.unsqueeze(-1) - part) / sigma).square()  # (B, d, values)
            total = torch.logaddexp(total, near.logsumexp(-1))
        pixel = total - math.log(sigma * math.sqrt(2 * math.pi))
        return Dequantised(x_bar, pixel.sum(1))
