"""The sampler of EDM: Heun's method on the noise level itself, with noise added on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from liquid_ode.diffusion.grid_sampler import GridSampler
from liquid_ode.diffusion.grids import KarrasGrid, Level, TimeGrid
from liquid_ode.diffusion.noise import SeededNoise
from liquid_ode.diffusion.sampling import GuidedDenoiser
from liquid_ode.diffusion.schedules import Schedule


@dataclass(frozen=True)
class KarrasHeun(GridSampler):
    """Heun's method (order 2) for dx̄/dσ = ε̂, x̄ = x/√ᾱ, with optional churn.

    A step from σ to σ′ first raises the noise to σ̂ = (1 + γ) σ, with γ = min(churn/N, √2 − 1) where
    σ is within ``churn_range``, and then goes down from there:

        x̄ ← x̄ + churn_noise √(σ̂² − σ²) z
        x̄′ = x̄ + (σ′ − σ̂) (ε̂(x̄, σ̂) + ε̂(x̄ + (σ′ − σ̂) ε̂, σ′))/2.

    The last step, to σ = 0, is Euler's: its result is x̂0. N levels take 2N − 1 evaluations of the
    denoiser. Without churn it is ``ProbabilityFlow(Heun(), DDIMPath(KarrasGrid(N)))``.

    Reference: Karras et al. 2022, Elucidating the design space of diffusion-based generative
    models, algorithm 2.

    Args:
        steps: N, how many levels of a :class:`KarrasGrid`, or any :class:`TimeGrid`.
        churn: S_churn, at least 0; 0 is deterministic. The paper's best are 10 to 80.
        churn_range: (S_tmin, S_tmax): noise levels at which noise is added. The noise is never
            raised above the last level of the schedule, beyond which the model was not trained.
        churn_noise: S_noise, a little above 1 where the model takes too much noise away.

    Raises:
        ValueError: where an option is out of range.
    """

    steps: int | TimeGrid = 18
    churn: float = 0.0
    churn_range: tuple[float, float] = (0.0, math.inf)
    churn_noise: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.churn < math.inf:
            raise ValueError(f"churn must be at least 0 and finite, not {self.churn!r}")
        if len(self.churn_range) != 2 or not 0 <= self.churn_range[0] < self.churn_range[1]:
            raise ValueError(
                f"churn_range must be (low, high) with 0 <= low < high, not {self.churn_range!r}"
            )
        object.__setattr__(self, "churn_range", tuple(self.churn_range))  # a list is no value
        if not 0 <= self.churn_noise < math.inf:
            raise ValueError(f"churn_noise must be at least 0 and finite, not {self.churn_noise!r}")

    def _usual_grid(self, steps: int) -> TimeGrid:
        return KarrasGrid(steps)

    def _sample_batch(self, denoise: GuidedDenoiser, x: Tensor, noise: SeededNoise) -> Tensor:
        levels = self.grid.levels(denoise.schedule)
        for index, grid_level in enumerate(levels):
            level = self._raised(grid_level, len(levels), denoise.schedule)
            if level != grid_level:
                x = _with_more_noise(x, grid_level.sigma, level.sigma, self.churn_noise, noise)
            x0, epsilon = denoise.at(x, level)  # (B, C, H, W) each
            if index + 1 == len(levels):
                return x0
            after = levels[index + 1]
            scale = math.sqrt(1 + after.sigma**2)  # x̄′/x′
            # x̄ + (σ′ − σ) ε̂ = x̂0 + σ′ ε̂, without the cancellation at large σ
            x = (x0 + after.sigma * epsilon) / scale
            corrected = denoise.at(x, after).epsilon
            x = x + (after.sigma - level.sigma) / 2 / scale * (corrected - epsilon)
        return x

    def _raised(self, level: Level, steps: int, schedule: Schedule) -> Level:
        """The level σ̂ to which noise is added before a step, ``level`` itself without churn."""
        low, high = self.churn_range
        if self.churn == 0 or not low <= level.sigma <= high:
            return level
        gamma = min(self.churn / steps, math.sqrt(2) - 1)
        raised = min((1 + gamma) * level.sigma, float(schedule.sigmas[-1]))
        sigma = torch.tensor([max(raised, level.sigma)])
        return Level(float(schedule.time_of_sigma(sigma)), float(sigma))


def _with_more_noise(
    x: Tensor, sigma: float, raised: float, factor: float, noise: SeededNoise
) -> Tensor:
    """x̄ + factor √(σ̂² − σ²) z at unit scale, out of x at σ: both ``(B, C, H, W)``."""
    added = factor * math.sqrt(raised**2 - sigma**2) * noise.draw()
    return (x * math.sqrt(1 + sigma**2) + added) / math.sqrt(1 + raised**2)
