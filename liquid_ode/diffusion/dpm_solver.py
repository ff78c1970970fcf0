"""DPM-Solver++ (2M): second order at one evaluation a step, out of the estimate before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from liquid_ode.diffusion.grid_sampler import GridSampler
from liquid_ode.diffusion.grids import TimeGrid, TrailingGrid
from liquid_ode.diffusion.noise import SeededNoise
from liquid_ode.diffusion.sampling import GuidedDenoiser


@dataclass(frozen=True)
class DPMSolver(GridSampler):
    """DPM-Solver++ (2M), a linear multistep method of order 2 for the sampling ODE.

    In the half log-SNR λ = −log σ, with h = λ′ − λ the step and h₋ the one before it, the clean
    image is extrapolated to the middle of the step,

        D = x̂0 + (h/h₋)/2 · (x̂0 − x̂0₋),
        x′ = (√(1−ᾱ′)/√(1−ᾱ)) x + √ᾱ′ (1 − e⁻ʰ) D.

    The first step has no estimate before it and is DDIM's; so is the last, to σ = 0, where h is
    infinite: the result is the last x̂0. The denoiser is evaluated once a step.

    Reference: Lu et al. 2022, DPM-Solver++: fast solver for guided sampling of diffusion
    probabilistic models, algorithm 2.

    Args:
        steps: how many trailing time steps with σ ≤ 80, or any :class:`TimeGrid`. Few steps are
            best spent so; with many, equal steps of log-SNR (:class:`LogSNRGrid`) converge at
            order 2, where time steps have a last stride that stays long.

    Raises:
        ValueError: where ``steps`` is neither.
    """

    steps: int | TimeGrid = 20

    def _usual_grid(self, steps: int) -> TimeGrid:
        return TrailingGrid(steps, sigma_max=80.0)

    def _sample_batch(self, denoise: GuidedDenoiser, x: Tensor, noise: SeededNoise) -> Tensor:
        levels = self.grid.levels(denoise.schedule)
        before: tuple[float, Tensor] | None = None  # h and x̂0 of the step before
        for level, after in pairwise(levels):
            x0 = denoise.at(x, level).x0  # (B, C, H, W)
            step = math.log(level.sigma / after.sigma)  # h
            middle = x0 if before is None else x0 + step / before[0] / 2 * (x0 - before[1])
            signal = 1 / math.sqrt(1 + after.sigma**2)  # √ᾱ′
            ratio = after.sigma / level.sigma  # e⁻ʰ
            kept = ratio * signal * math.sqrt(1 + level.sigma**2)  # √(1−ᾱ′)/√(1−ᾱ)
            x = kept * x + signal * (1 - ratio) * middle
            before = step, x0
        return denoise.at(x, levels[-1]).x0
