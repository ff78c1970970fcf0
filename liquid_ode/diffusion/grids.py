"""The noise levels that a sampler visits, from much noise to little, as values.

A level is a noise-to-signal ratio σ = √((1−ᾱ)/ᾱ) and the time t(σ) that the model is given there.
Every sampler that steps takes any of these grids. From the last level it goes to σ = 0, which is
the clean image x̂0 and no level of the grid: n levels are n steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from liquid_ode.diffusion.checks import check_count
from liquid_ode.diffusion.schedules import Schedule


class Level(NamedTuple):
    """A noise level of a grid."""

    t: int | float
    """the time that the model is given: a whole time step, or a float between two"""
    sigma: float
    """the noise-to-signal ratio there, positive"""


class TimeGrid(ABC):
    """Noise levels in decreasing order. A grid of one's own gives :meth:`levels`."""

    @abstractmethod
    def levels(self, schedule: Schedule) -> list[Level]:
        """The levels visited on a schedule, their σ strictly decreasing and above 0.

        Raises:
            ValueError: where the schedule does not have such levels.
        """


def check_sigma_max(sigma_max: float) -> None:
    """Raise ValueError where the noise to start from is not positive (infinity is all there is)."""
    if not sigma_max > 0:
        raise ValueError(f"sigma_max must be positive, not {sigma_max!r}")


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
            f"steps must be at most {num_steps}, the time steps there are, not {steps}"
        )
    # round(T (steps − k)/steps), half up, in whole numbers
    return [(2 * num_steps * k + steps) // (2 * steps) - 1 for k in range(steps, 0, -1)]


@dataclass(frozen=True)
class TrailingGrid(TimeGrid):
    """Whole time steps of training at equal strides, :func:`trailing_timesteps`.

    Args:
        steps: how many; None for every time step of the schedule.
        sigma_max: the strides go over the time steps with σ ≤ sigma_max alone. The cosine
            schedule ends at σ = 20,291, where a prediction of ε says nothing about the image.

    Raises:
        ValueError: where an option is out of range; on use, where there are fewer time steps.
    """

    steps: int | None = 50
    sigma_max: float = math.inf

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_count("steps", self.steps)
        check_sigma_max(self.sigma_max)

    def levels(self, schedule: Schedule) -> list[Level]:
        usable = int((schedule.sigmas <= self.sigma_max).sum())
        if usable == 0:
            raise ValueError(
                f"sigma_max must be at least {float(schedule.sigmas[0]):.3g}, the σ of the first "
                f"time step, not {self.sigma_max:g}"
            )
        steps = usable if self.steps is None else self.steps
        return _whole(trailing_timesteps(steps, usable), schedule)


@dataclass(frozen=True)
class KarrasGrid(TimeGrid):
    """σ_i = (σ_max^{1/ρ} + i/(N−1) (σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ, i = 0 … N−1.

    Reference: Karras et al. 2022, Elucidating the design space of diffusion-based generative
    models, eq. 5 and table 1.

    Args:
        steps: N.
        rho: ρ; larger ones put more levels at little noise.
        sigma_max: where to start, or at the schedule's last σ if that is less.
        sigma_min: where to end, or at the schedule's first σ if that is more.

    Raises:
        ValueError: where an option is out of range, or on use, where sigma_max is below sigma_min.
    """

    steps: int = 18
    rho: float = 7.0
    sigma_max: float = 80.0
    sigma_min: float = 0.002

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        if not 0 < self.rho < math.inf:
            raise ValueError(f"rho must be positive and finite, not {self.rho!r}; 7 is usual")
        check_sigma_max(self.sigma_max)
        if not 0 <= self.sigma_min < math.inf:
            raise ValueError(f"sigma_min must be at least 0 and finite, not {self.sigma_min!r}")

    def levels(self, schedule: Schedule) -> list[Level]:
        first, last = sigma_range(schedule, self.sigma_max, self.sigma_min)
        high, low = first ** (1 / self.rho), last ** (1 / self.rho)
        shares = [i / max(self.steps - 1, 1) for i in range(self.steps)]
        sigmas = [(high + share * (low - high)) ** self.rho for share in shares]
        return _between(sigmas, schedule, "KarrasGrid")


@dataclass(frozen=True)
class LogSNRGrid(TimeGrid):
    """Equal steps of the half log-SNR λ = −log σ, from σ_max to the schedule's first σ.

    Reference: Lu et al. 2022, DPM-Solver, section 3.4 ("uniform logSNR").

    Args:
        steps: how many levels.
        sigma_max: where to start, or at the schedule's last σ if that is less.

    Raises:
        ValueError: where an option is out of range.
    """

    steps: int = 20
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_sigma_max(self.sigma_max)

    def levels(self, schedule: Schedule) -> list[Level]:
        first, last = sigma_range(schedule, self.sigma_max)
        shares = [i / max(self.steps - 1, 1) for i in range(self.steps)]
        sigmas = [first * (last / first) ** share for share in shares]
        return _between(sigmas, schedule, "LogSNRGrid")


@dataclass(frozen=True)
class TimeList(TimeGrid):
    """Time steps of one's own: ``TimeList([999, 600, 200, 20])``.

    Args:
        times: whole time steps, decreasing.

    Raises:
        ValueError: where they are not whole and decreasing, or, on use, outside the schedule.
    """

    times: Sequence[int]

    def __post_init__(self) -> None:
        times = _entries("times", self.times)
        for t in times:
            if isinstance(t, bool) or not isinstance(t, int) or t < 0:
                raise ValueError(
                    f"times must be whole time steps of at least 0, not {t!r}; SigmaList takes "
                    "noise levels between them"
                )
        _check_decreasing("times", times)
        object.__setattr__(self, "times", times)

    def levels(self, schedule: Schedule) -> list[Level]:
        if self.times[0] >= schedule.num_steps:
            raise ValueError(
                f"times must lie in [0, {schedule.num_steps - 1}], the time steps of the "
                f"schedule; got {self.times[0]}"
            )
        return _whole(list(self.times), schedule)


@dataclass(frozen=True)
class SigmaList(TimeGrid):
    """Noise-to-signal ratios of one's own: ``SigmaList([80.0, 9.0, 1.0, 0.05])``.

    Args:
        sigmas: positive numbers, decreasing.

    Raises:
        ValueError: where they are not positive and decreasing, or, on use, outside the schedule.
    """

    sigmas: Sequence[float]

    def __post_init__(self) -> None:
        sigmas = _entries("sigmas", self.sigmas)
        for sigma in sigmas:
            if not isinstance(sigma, int | float) or not 0 < sigma < math.inf:
                raise ValueError(f"sigmas must be positive numbers, not {sigma!r}")
        _check_decreasing("sigmas", sigmas)
        object.__setattr__(self, "sigmas", tuple(map(float, sigmas)))

    def levels(self, schedule: Schedule) -> list[Level]:
        low, high = float(schedule.sigmas[0]), float(schedule.sigmas[-1])
        for sigma in self.sigmas:
            if not (1 - _ROUNDING) * low <= sigma <= (1 + _ROUNDING) * high:
                raise ValueError(
                    f"sigmas must lie in [{low:.6g}, {high:.6g}], the noise levels of the "
                    f"schedule; got {sigma:g}"
                )
        return _between(self.sigmas, schedule, "SigmaList")


_ROUNDING = 1e-5  # a σ that was printed with six digits is that of the schedule


def sigma_range(
    schedule: Schedule, sigma_max: float, sigma_min: float = 0.0
) -> tuple[float, float]:
    """The wanted (largest, smallest) noise-to-signal ratio, as far as the schedule reaches."""
    low, high = float(schedule.sigmas[0]), float(schedule.sigmas[-1])
    first = max(min(sigma_max, high), low)
    last = min(max(sigma_min, low), high)
    if last > first:
        raise ValueError(
            f"sigma_max must be at least sigma_min, got {sigma_max:g} and {sigma_min:g}"
        )
    return first, last


def _whole(times: list[int], schedule: Schedule) -> list[Level]:
    return [Level(t, float(schedule.sigmas[t])) for t in times]


def _between(sigmas: Sequence[float], schedule: Schedule, name: str) -> list[Level]:
    """Levels at any σ of the schedule; float32, as the model is given them."""
    low, high = float(schedule.sigmas[0]), float(schedule.sigmas[-1])
    inside = torch.tensor([min(max(sigma, low), high) for sigma in sigmas])  # (N,)
    if not bool((inside.diff() < 0).all()):
        raise ValueError(
            f"the noise levels must decrease: {name} has {len(sigmas)} of them between "
            f"{float(inside[0]):g} and {float(inside[-1]):g}; take fewer, or a wider range"
        )
    times = schedule.time_of_sigma(inside)  # (N,)
    return [Level(t, s) for t, s in zip(times.tolist(), inside.tolist(), strict=True)]


def _entries(name: str, values: object) -> tuple[Any, ...]:
    """A tensor, an array or a sequence of numbers as a tuple, which must not be empty."""
    try:
        entries = values.tolist() if hasattr(values, "tolist") else list(values)  # type: ignore[call-overload]
    except TypeError as error:
        raise ValueError(f"{name} must be a list of numbers, not {values!r}") from error
    if not entries:
        raise ValueError(f"{name} must have at least one entry")
    return tuple(entries)


def _check_decreasing(name: str, values: Sequence[float]) -> None:
    for before, after in pairwise(values):
        if not after < before:
            raise ValueError(
                f"{name} must decrease from each to the next, but {before:g} is followed by "
                f"{after:g}: sampling goes from much noise to little"
            )
