"""What a denoising model predicts: the noise, the velocity, or the clean image.

All three are the same knowledge. With x_t = a x0 + b ε, a = √ᾱ = 1/√(1+σ²) and
b = √(1−ᾱ) = σ/√(1+σ²), any one of them gives the other two at a known x_t. The noise level is
passed as σ rather than as ᾱ, because 1 − ᾱ has lost its digits in float32 where ᾱ is near 1.

Every ``sigma`` here broadcasts against the images: a number's tensor or ``(B, 1, 1, 1)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


def signal_and_noise(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(√ᾱ, √(1−ᾱ)) = (1, σ)/√(1 + σ²), accurate at both ends of a schedule."""
    signal = torch.rsqrt(1 + sigma.square())
    return signal, sigma * signal


def diffuse(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_t = √ᾱ x0 + √(1−ᾱ) ε (Ho et al. 2020, eq. 4)."""
    a, b = signal_and_noise(sigma)
    return a * x0 + b * noise  # (B, C, H, W)


def noise_between(x_t: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """The noise ε that leads from x0 to x_t: (x_t − √ᾱ x0)/√(1−ᾱ) = (x_t √(1+σ²) − x0)/σ."""
    return (x_t * (1 + sigma.square()).sqrt() - x0) / sigma  # (B, C, H, W)


class Prediction(ABC):
    """What the output of a model means."""

    name: ClassVar[str]

    @abstractmethod
    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """The output that a perfect model would give for x_t = √ᾱ x0 + √(1−ᾱ) ε."""

    @abstractmethod
    def x0(self, output: Tensor, x_t: Tensor, sigma: Tensor) -> Tensor:
        """The estimate x̂0 of the clean image, out of the model's output at x_t."""

    @abstractmethod
    def epsilon(self, output: Tensor, x_t: Tensor, sigma: Tensor) -> Tensor:
        """The estimate ε̂ of the noise, out of the model's output at x_t."""

    @abstractmethod
    def error_ratio(self, snr: Tensor) -> Tensor:
        """The squared error of this prediction divided by that of x̂0, at equal knowledge."""


@dataclass(frozen=True)
class Epsilon(Prediction):
    """The model predicts the noise ε (Ho et al. 2020, eq. 12).

    Caution: x̂0 = x_t √(1+σ²) − σ ε̂ multiplies the model's error by σ, which is large at the
    last time steps.
    """

    name = "epsilon"

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return noise

    def x0(self, output: Tensor, x_t: Tensor, sigma: Tensor) -> Tensor:
        return x_t * (1 + sigma.square()).sqrt() - sigma * output  # (B, C, H, W)

    def epsilon(self, output: Tensor, x_t: Tensor, sigma: Tensor) -> Tensor:
        return output

    def error_ratio(self, snr: Tensor) -> Tensor:
        return snr


@dataclass(frozen=True)
class Velocity(Prediction):
    """The model predicts v = √ᾱ ε − √(1−ᾱ) x0 (Salimans & Ho 2022, section 4 and appendix D)."""

    name = "v"

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        a, b = signal_and_noise(sigma)
        return a * noise - b * x0  # (B, C, H, W)

    def x0(self, output: Tensor, x_t: Tensor, sigma: Tensor) -> Tensor:
        a, b = signal_and_noise(sigma)
        return a * x_t - b * output  # (B, C, H, W)

    def epsilon(self, output: Tensor, x_t: Tensor, sigma: Tensor) -> Tensor:
        a, b = signal_and_noise(sigma)
        return b * x_t + a * output  # (B, C, H, W)

    def error_ratio(self, snr: Tensor) -> Tensor:
        return snr + 1


@dataclass(frozen=True)
class Sample(Prediction):
    """The model predicts the clean image x0.

    Caution: ε̂ = (x_t √(1+σ²) − x̂0)/σ multiplies the model's error by 1/σ, which is large at the
    first time steps.
    """

    name = "x0"

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return x0

    def x0(self, output: Tensor, x_t: Tensor, sigma: Tensor) -> Tensor:
        return output

    def epsilon(self, output: Tensor, x_t: Tensor, sigma: Tensor) -> Tensor:
        return noise_between(x_t, output, sigma)

    def error_ratio(self, snr: Tensor) -> Tensor:
        return torch.ones_like(snr)


PREDICTIONS: dict[str, Prediction] = {p.name: p for p in (Epsilon(), Velocity(), Sample())}


def as_prediction(prediction: str | Prediction) -> Prediction:
    """A prediction, given itself or its name: "epsilon", "v" or "x0".

    Raises:
        ValueError: where the name is unknown.
    """
    if isinstance(prediction, Prediction):
        return prediction
    if prediction not in PREDICTIONS:
        raise ValueError(
            f"prediction must be one of {', '.join(map(repr, PREDICTIONS))} or a Prediction, "
            f"not {prediction!r}"
        )
    return PREDICTIONS[prediction]
