"""The DDIM sampler: few large steps through the time steps of training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from liquid_ode.diffusion.checks import check_count
from liquid_ode.diffusion.noise import SeededNoise
from liquid_ode.diffusion.sampling import GuidedDenoiser, Sampler


def trailing_timesteps(steps: int, num_steps: int) -> list[int]:
    """``steps`` descending time steps out of ``num_steps``: round(T − k T/steps) − 1, k = 0, 1, …

    The first is T − 1, the noise that sampling really starts from; the last is about T/steps − 1,
    from where the clean image is one more equal stride away.

    Reference: Lin et al. 2024, Common diffusion noise schedules and sample steps are flawed,
    section 3.3 and table 2, "trailing".

    Raises:
        ValueError: where ``steps`` is not in [1, num_steps].
    """
    check_count("steps", steps)
    if steps > num_steps:
        raise ValueError(
            f"steps must be at most {num_steps}, the time steps of the schedule, not {steps}"
        )
    # round(T (steps − k)/steps), half up, in whole numbers
    return [(2 * num_steps * k + steps) // (2 * steps) - 1 for k in range(steps, 0, -1)]


@dataclass(frozen=True)
class DDIM(Sampler):
    """Denoising diffusion implicit models.

    From time step t with ᾱ to the next entry of the list with ᾱ′:

        σ_η = η √((1−ᾱ′)/(1−ᾱ)) √(1 − ᾱ/ᾱ′)
        x′ = √ᾱ′ x̂0 + √(1−ᾱ′−σ_η²) ε̂ + σ_η z.

    The steps go exactly from each entry of :meth:`timesteps` to the next, and from the last to
    ᾱ′ = 1, so that the result is the last x̂0. The denoiser is evaluated ``steps`` times.

    Reference: Song et al. 2021, Denoising diffusion implicit models, eq. 12 and 16.

    Args:
        steps: number of steps, at most the schedule's ``num_steps``.
        eta: η in [0, 1]: 0 is deterministic, 1 adds as much noise as ancestral (DDPM) sampling.

    Raises:
        ValueError: where ``steps`` is below 1 or ``eta`` outside [0, 1].
    """

    steps: int = 50
    eta: float = 0.0

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], not {self.eta!r}")

    def timesteps(self, num_steps: int) -> list[int]:
        """The time steps visited, descending from ``num_steps`` − 1.

        Raises:
            ValueError: where the sampler has more steps than the schedule.
        """
        return trailing_timesteps(self.steps, num_steps)

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

    def _sample_batch(self, denoise: GuidedDenoiser, x: Tensor, noise: SeededNoise) -> Tensor:
        schedule = denoise.schedule
        times = self.timesteps(schedule.num_steps)
        sigmas = [*schedule.sigmas[times].tolist(), 0.0]
        for t, sigma, after in zip(times, sigmas, sigmas[1:], strict=False):
            batch_t = torch.full(x.shape[:1], t, dtype=torch.long, device=x.device)  # (B,)
            batch_sigma = torch.full(x.shape[:1], sigma, device=x.device)  # (B,)
            x0, epsilon = denoise(x, batch_t, batch_sigma)  # (B, C, H, W) each
            signal, direction, spread = self.coefficients(sigma, after)
            x = signal * x0 + direction * epsilon
            if spread > 0:
                x = x + spread * noise.draw()
        return x
