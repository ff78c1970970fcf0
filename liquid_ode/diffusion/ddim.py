"""DDIM and ancestral sampling (DDPM): steps that add part of the noise anew."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from liquid_ode.diffusion.grid_sampler import GridSampler
from liquid_ode.diffusion.grids import TimeGrid, TrailingGrid
from liquid_ode.diffusion.noise import SeededNoise
from liquid_ode.diffusion.sampling import GuidedDenoiser


@dataclass(frozen=True)
class RenoisingSampler(GridSampler):
    """Steps x′ = (factor of x̂0) x̂0 + (factor of ε̂) ε̂ + (factor of z) z, z new noise."""

    @abstractmethod
    def coefficients(self, sigma: float, after: float) -> tuple[float, float, float]:
        """The factors (of x̂0, of ε̂, of z) of a step between two noise-to-signal ratios.

        Args:
            sigma: σ at the start of the step.
            after: σ′ < σ at its end; 0 is the clean image.
        """

    def _sample_batch(self, denoise: GuidedDenoiser, x: Tensor, noise: SeededNoise) -> Tensor:
        levels = self.grid.levels(denoise.schedule)
        ends = [*(level.sigma for level in levels[1:]), 0.0]
        for level, after in zip(levels, ends, strict=True):
            x0, epsilon = denoise.at(x, level)  # (B, C, H, W) each
            signal, direction, spread = self.coefficients(level.sigma, after)
            x = signal * x0 + direction * epsilon
            if spread > 0:
                x = x + spread * noise.draw()
        return x


@dataclass(frozen=True)
class DDIM(RenoisingSampler):
    """Denoising diffusion implicit models.

    From time step t with ᾱ to the next entry of the list with ᾱ′:

        σ_η = η √((1−ᾱ′)/(1−ᾱ)) √(1 − ᾱ/ᾱ′)
        x′ = √ᾱ′ x̂0 + √(1−ᾱ′−σ_η²) ε̂ + σ_η z.

    The steps go exactly from each level of the grid to the next, and from the last to ᾱ′ = 1, so
    that the result is the last x̂0. The denoiser is evaluated ``steps`` times.

    Reference: Song et al. 2021, Denoising diffusion implicit models, eq. 12 and 16.

    Args:
        steps: how many trailing time steps, at most the schedule's ``num_steps``; or any
            :class:`TimeGrid`.
        eta: η in [0, 1]: 0 is deterministic, 1 adds as much noise as ancestral (DDPM) sampling.

    Raises:
        ValueError: where ``steps`` is neither, or ``eta`` outside [0, 1].
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], not {self.eta!r}")

    def coefficients(self, sigma: float, after: float) -> tuple[float, float, float]:
        """The factors (of x̂0, of ε̂, of z) of a step between two noise-to-signal ratios.

        They are √ᾱ′, √(1−ᾱ′−σ_η²) and σ_η, written with σ = √((1−ᾱ)/ᾱ), which loses no digits.

        Args:
            sigma: σ at the start of the step.
            after: σ′ < σ at its end.
        """
        signal = 1 / math.sqrt(1 + after**2)
        share = math.sqrt((sigma**2 - after**2) / sigma**2)  # √((1 − ᾱ/ᾱ′)/(1 − ᾱ))
        spread = self.eta * after * signal * share
        direction = after * signal * math.sqrt(1 - (self.eta * share) ** 2)
        return signal, direction, spread


@dataclass(frozen=True)
class DDPM(RenoisingSampler):
    """Ancestral sampling: x′ is drawn from q(x′ | x, x̂0), a Gaussian, at every step.

    From ᾱ to ᾱ′ with β = 1 − ᾱ/ᾱ′ its mean is

        √ᾱ′ β/(1−ᾱ) x̂0 + √(ᾱ/ᾱ′) (1−ᾱ′)/(1−ᾱ) x,

    and its variance is between β̃ = β (1−ᾱ′)/(1−ᾱ), right where all images are one ("small"), and
    β, right where they are white noise ("large"): β^v β̃^(1−v). With v = 0 it is
    ``DDIM(steps, eta=1)``. The last step, to the clean image, adds no noise.

    Reference: Ho et al. 2020, Denoising diffusion probabilistic models, eq. 6, 7 and section 3.2;
    Nichol & Dhariwal 2021, Improved denoising diffusion probabilistic models, eq. 15, with one v
    for all.

    Args:
        steps: how many trailing time steps, or any :class:`TimeGrid`; the default is every time
            step of the schedule, as the model was trained.
        variance: v in [0, 1]: 0 is the small variance, 1 the large one. With few steps the large
            one leaves noise in the images.

    Raises:
        ValueError: where ``steps`` is neither, or ``variance`` outside [0, 1].
    """

    steps: int | TimeGrid = TrailingGrid(None)
    variance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.variance <= 1:
            raise ValueError(f"variance must lie in [0, 1], not {self.variance!r}")

    def coefficients(self, sigma: float, after: float) -> tuple[float, float, float]:
        signal, direction, spread = DDIM(eta=1.0).coefficients(sigma, after)
        if after > 0:  # √(β/β̃) = √((1−ᾱ)/(1−ᾱ′))
            noise, noise_after = (s / math.sqrt(1 + s**2) for s in (sigma, after))
            spread *= (noise / noise_after) ** self.variance
        return signal, direction, spread
