"""How much each sample's squared error counts in the training loss, by its noise level."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from liquid_ode.diffusion.predictions import Prediction


class Weighting(ABC):
    """Weights of the per-sample losses of a batch."""

    @abstractmethod
    def __call__(self, snr: Tensor, prediction: Prediction) -> Tensor:
        """Weights ``(B,)`` for samples at these signal-to-noise ratios ``(B,)``.

        Args:
            snr: ᾱ/(1−ᾱ) = σ⁻² of each sample.
            prediction: what the model predicts, and so what the squared error is of.
        """


@dataclass(frozen=True)
class UniformWeighting(Weighting):
    """Weight 1: the plain mean squared error (for ε, Ho et al. 2020, eq. 14)."""

    def __call__(self, snr: Tensor, prediction: Prediction) -> Tensor:
        return torch.ones_like(snr)


def _check_gamma(gamma: float) -> None:
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma must be positive and finite, not {gamma!r}; 5.0 is usual")


def _capped(snr: Tensor, gamma: float) -> Tensor:
    """m = min(SNR, γ), kept above 0 so that ratios of it exist even without any signal."""
    return snr.clamp(torch.finfo(snr.dtype).tiny, gamma)


@dataclass(frozen=True)
class MinSNR(Weighting):
    """Min-SNR-γ: with m = min(SNR, γ), weight m for x0, m/SNR for ε and m/(SNR + 1) for v.

    The three are one weighting, m ‖x0 − x̂0‖², written for what the model predicts.

    Reference: Hang et al. 2023, Efficient diffusion training via Min-SNR weighting strategy,
    section 3.4.

    Args:
        gamma: γ, the SNR above which a sample counts no more.

    Raises:
        ValueError: where gamma is not positive and finite.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)

    def __call__(self, snr: Tensor, prediction: Prediction) -> Tensor:
        ratio = prediction.error_ratio(snr.clamp(min=torch.finfo(snr.dtype).tiny))  # (B,)
        return _capped(snr, self.gamma) / ratio  # (B,)


@dataclass(frozen=True)
class BatchNormalisedMinSNR(Weighting):
    """m / mean(m) over the batch with m = min(SNR, γ), on the loss of whatever is predicted.

    Caution: on the ε loss it counts noisy samples far less than :class:`MinSNR` does, and a
    sample's weight depends on the others in its batch, so that the gradient of a batch is not
    the mean over its parts.

    Args:
        gamma: γ, the SNR above which a sample counts no more.

    Raises:
        ValueError: where gamma is not positive and finite.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)

    def __call__(self, snr: Tensor, prediction: Prediction) -> Tensor:
        capped = _capped(snr, self.gamma)  # (B,)
        return capped / capped.mean()  # (B,)
