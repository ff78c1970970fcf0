"""Sampling as an ordinary differential equation, with any solver of the ``solvers`` package.

With x̄ = x_t/√ᾱ = x0 + σ ε the probability-flow ODE is dx̄/dσ = ε̂(x̄, σ) = (x̄ − x̂0(x̄, σ))/σ,
from much noise to little (Song et al. 2021, Denoising diffusion implicit models, eq. 14).

What is integrated is y = x̄ − σ z, with z the noise that the image starts from: dy/dσ = ε̂ − z =
(y − x̂0)/σ. It is the same ODE and every method takes the same steps up to rounding, but y stays
of the size of an image while x̄ starts at 20,000 times that, where float32 has lost the image and
a relative tolerance means nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from liquid_ode.diffusion.checks import check_count
from liquid_ode.diffusion.grids import TimeGrid, TrailingGrid, check_sigma_max, sigma_range
from liquid_ode.diffusion.noise import SeededNoise
from liquid_ode.diffusion.sampling import GuidedDenoiser, Sampler
from liquid_ode.diffusion.schedules import Schedule
from solvers import Euler, SemilinearField, Solver

CleanEstimate = Callable[[Tensor, Tensor], Tensor]
"""x̂0(y, σ), for y ``(B, C, H, W)`` and σ a number's tensor or ``(B, 1, 1, 1)``."""


class NoisePath(ABC):
    """The independent variable of the ODE: how a solver's time runs through the noise levels."""

    @abstractmethod
    def sigma_range(self, schedule: Schedule) -> tuple[float, float]:
        """The noise-to-signal ratios (first, last) between which the ODE is solved."""

    @abstractmethod
    def integrate(
        self, solver: Solver, estimate: CleanEstimate, y: Tensor, schedule: Schedule
    ) -> Tensor:
        """The state y at the last noise level, from y at the first.

        Args:
            solver: what solves.
            estimate: x̂0(y, σ), one evaluation of the denoiser.
            y: x̄ − σ z at the first noise level, ``(B, C, H, W)``.
            schedule: the noise schedule.
        """


@dataclass(frozen=True)
class LogSNRPath(NoisePath):
    """One solve in the half log-SNR λ = −log σ: dy/dλ = x̂0(y, λ) − y.

    It is a :class:`solvers.SemilinearField` with τ = 1, so that exponential and semi-implicit
    methods apply too; exponential Euler is DDIM on equal steps of λ. The field is smooth in λ,
    which higher-order and adaptive methods need.

    Reference: Lu et al. 2022, DPM-Solver++: fast solver for guided sampling of diffusion
    probabilistic models, proposition 4.1.

    Args:
        sigma_max: where to start, if the schedule reaches that far: above 80 an image in [-1, 1]
            leaves no trace in the noise (Karras et al. 2022, table 1), and the cosine schedule
            would spend a third of λ there. ``math.inf`` starts where the schedule does.

    Raises:
        ValueError: where sigma_max is not positive.
    """

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        check_sigma_max(self.sigma_max)

    def sigma_range(self, schedule: Schedule) -> tuple[float, float]:
        """From ``sigma_max``, or the schedule's last σ where that is less, to its first σ."""
        return sigma_range(schedule, self.sigma_max)

    def integrate(
        self, solver: Solver, estimate: CleanEstimate, y: Tensor, schedule: Schedule
    ) -> Tensor:
        first, last = self.sigma_range(schedule)
        if first == last:
            return y
        field = SemilinearField(lambda lam, state: estimate(state, torch.exp(-lam)), tau=1.0)
        return solver.solve(field, y, t_span=(-math.log(first), -math.log(last))).y


@dataclass(frozen=True)
class DDIMPath(NoisePath):
    """The levels of a grid, DDIM's or another: one solve between each two of them, linear in σ.

    ``solver.with_steps(1)`` takes each interval, so that explicit Euler makes exactly the steps
    of ``DDIM(steps, eta=0)``, and Heun's method on a :class:`KarrasGrid` those of
    :class:`KarrasHeun`. With r in [0, 1] from σ to σ′, dy/dr = (σ′ − σ)(y − x̂0)/σ(r).

    Caution: the first interval of DDIM's time steps on the cosine schedule takes σ from 20,291 to
    about 30, where a step of a higher-order method is worse than one of Euler: give a grid with a
    ``sigma_max``. Methods for semilinear fields do not apply. :class:`LogSNRPath` serves them all.

    Args:
        steps: number of trailing time steps, the clean step included, or any :class:`TimeGrid`.

    Raises:
        ValueError: where steps is neither, or on use above the schedule's ``num_steps``.
    """

    steps: int | TimeGrid = 50

    def __post_init__(self) -> None:
        if not isinstance(self.steps, TimeGrid):
            check_count("steps", self.steps)

    def _sigmas(self, schedule: Schedule) -> list[float]:
        grid = self.steps if isinstance(self.steps, TimeGrid) else TrailingGrid(self.steps)
        return [level.sigma for level in grid.levels(schedule)]

    def sigma_range(self, schedule: Schedule) -> tuple[float, float]:
        """The σ of the first and of the last level."""
        sigmas = self._sigmas(schedule)
        return sigmas[0], sigmas[-1]

    def integrate(
        self, solver: Solver, estimate: CleanEstimate, y: Tensor, schedule: Schedule
    ) -> Tensor:
        sigmas = self._sigmas(schedule)
        one_step = solver.with_steps(1)
        for start, end in pairwise(sigmas):
            y = one_step.solve(_interval(estimate, start, end), y, t_span=(0.0, 1.0)).y
        return y


def _interval(
    estimate: CleanEstimate, start: float, end: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """dy/dr between two noise levels, σ(r) = start + r (end − start)."""

    def field(r: Tensor, y: Tensor) -> Tensor:
        sigma = start + r * (end - start)  # () or (B, 1, 1, 1)
        return (end - start) * (y - estimate(y, sigma)) / sigma  # (B, C, H, W)

    return field


@dataclass(frozen=True)
class ProbabilityFlow(Sampler):
    """The probability-flow ODE dx̄/dσ = ε̂(x̄/√(1+σ²), t(σ)), x̄ = x/√ᾱ, solved by any solver.

    It starts at x̄ = √(1+σ²) z at the path's largest σ. At its smallest σ the solution still
    holds that little noise; one last evaluation of the denoiser takes it out, x̂0(x̄, σ), which is
    also DDIM's last step. (The ODE itself cannot be followed to σ = 0, below the time steps the
    model was trained on.) The denoiser is so evaluated once more than the solver reports.

    The solver's own budget of steps counts, on a :class:`LogSNRPath`: take
    ``solver.with_steps(50)`` to sample with the 5-step solver of a cell.

    >>> from solvers import Euler, Uniform
    >>> ProbabilityFlow(Euler(step_size=Uniform()), DDIMPath(50))  # doctest: +ELLIPSIS
    ProbabilityFlow(...)

    samples the images of ``DDIM(steps=50, eta=0)``.

    Reference: Song et al. 2021, Denoising diffusion implicit models, eq. 14; Karras et al. 2022,
    Elucidating the design space of diffusion-based generative models, eq. 1.

    Args:
        solver: any solver of the ``solvers`` package.
        path: the independent variable: :class:`LogSNRPath` or :class:`DDIMPath`.

    Raises:
        ValueError: where the solver or the path is not one.
        solvers.SolverError: on sampling, where a solve fails.
    """

    solver: Solver = Euler(steps=50)
    path: NoisePath = LogSNRPath()

    def __post_init__(self) -> None:
        if not callable(getattr(self.solver, "solve", None)):
            raise ValueError(
                f"solver must be a solver such as solvers.Euler(steps=50), not {self.solver!r}"
            )
        if not isinstance(self.path, NoisePath):
            raise ValueError(f"path must be LogSNRPath() or DDIMPath(steps), not {self.path!r}")

    def first_sigma(self, schedule: Schedule) -> float:
        return self.path.sigma_range(schedule)[0]

    def _sample_batch(self, denoise: GuidedDenoiser, x: Tensor, noise: SeededNoise) -> Tensor:
        schedule = denoise.schedule
        first, last = self.path.sigma_range(schedule)

        def estimate(y: Tensor, sigma: Tensor) -> Tensor:
            noisy = (y + sigma * x) / (1 + sigma.square()).sqrt()  # (B, C, H, W)
            of_each = sigma.reshape(-1).expand(len(y))  # (B,)
            return denoise(noisy, schedule.time_of_sigma(of_each), of_each).x0

        y = x / (math.sqrt(1 + first**2) + first)  # x̄ − σ z = (√(1+σ²) − σ) z
        y = self.path.integrate(self.solver, estimate, y, schedule)
        return estimate(y, torch.tensor(last, device=y.device))
