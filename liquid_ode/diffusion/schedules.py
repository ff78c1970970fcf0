"""Noise schedules: how much signal and noise a diffused image holds at each of T time steps.

x_t = √ᾱ_t x0 + √(1−ᾱ_t) ε, for t = 0 (nearly clean) to T − 1 (nearly pure noise). One number
says it all: the noise-to-signal ratio σ_t = √((1−ᾱ_t)/ᾱ_t), with SNR = 1/σ², √ᾱ = 1/√(1+σ²)
and √(1−ᾱ) = σ/√(1+σ²). Unlike ᾱ it is accurate in float32 at both ends, so the rest of this
package computes with σ.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from liquid_ode.diffusion.checks import check_count, check_times

SIGMA_LIMIT = 1e15  # σ² must stay within float32


@dataclass(frozen=True)
class Schedule(ABC):
    """A variance-preserving noise schedule of ``num_steps`` discrete time steps.

    The tables are computed in float64 on the CPU and stored as float32 CPU tensors ``(T,)``. A
    new schedule defines only ``_variances``.

    Args:
        num_steps: T, the number of time steps.

    Raises:
        ValueError: where an option is out of range, or the schedule leaves no signal that
            float32 can express.
    """

    num_steps: int = 1000

    def __post_init__(self) -> None:
        check_count("num_steps", self.num_steps)
        self._check_options()
        sigma = float(self._sigmas64[-1])
        if not sigma < SIGMA_LIMIT:
            raise ValueError(
                f"the schedule must leave some signal in float32: its last noise-to-signal "
                f"ratio is {sigma:g}, more than {SIGMA_LIMIT:g}. Use smaller betas or fewer steps."
            )

    @abstractmethod
    def _check_options(self) -> None:
        """Raise ValueError where an option of the schedule is out of range."""

    @abstractmethod
    def _variances(self) -> Tensor:
        """β_t, float64 ``(T,)``, each in (0, 1)."""

    @cached_property
    def _sigmas64(self) -> Tensor:
        alpha_bar = torch.cumprod(1 - self._variances(), 0)  # (T,)
        return ((1 - alpha_bar) / alpha_bar).sqrt()  # (T,)

    @cached_property
    def betas(self) -> Tensor:
        """β_t, the variance of the noise that step t adds; float32 ``(T,)`` on the CPU."""
        return self._variances().float()

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ_t = Π_{i ≤ t} (1 − β_i), the share of signal; float32 ``(T,)`` on the CPU."""
        return torch.cumprod(1 - self._variances(), 0).float()

    @cached_property
    def sigmas(self) -> Tensor:
        """σ_t = √((1−ᾱ_t)/ᾱ_t), increasing; float32 ``(T,)`` on the CPU."""
        return self._sigmas64.float()

    def sigma(self, t: Tensor | int) -> Tensor:
        """σ_t, the noise-to-signal ratio at time step t.

        Args:
            t: whole time steps in [0, T − 1], of any shape.

        Returns:
            float32, of t's shape and on its device.

        Raises:
            ValueError: where t is not whole or lies outside the schedule.
        """
        times = torch.tensor(t) if isinstance(t, int) else t
        check_times(times, self.num_steps)
        return self.sigmas.to(times.device)[times]

    def snr(self, t: Tensor | int) -> Tensor:
        """SNR_t = ᾱ_t/(1−ᾱ_t) = σ_t⁻², the signal-to-noise ratio at time step t."""
        return self.sigma(t).pow(-2)

    def time_of_sigma(self, sigma: Tensor) -> Tensor:
        """The continuous time t(σ), in units of time steps: t(σ_i) = i exactly for every step i.

        Between two steps t is linear in log σ; outside [σ_0, σ_{T−1}] it is held at 0 or T − 1,
        where a model was trained.

        Args:
            sigma: noise-to-signal ratios, floating point, of any shape.

        Returns:
            Times in [0, T − 1], of sigma's shape, dtype and device.
        """
        table = self.sigmas.to(sigma.device, sigma.dtype)  # (T,)
        if self.num_steps == 1:
            return torch.zeros_like(sigma)
        upper = torch.searchsorted(table, sigma.contiguous()).clamp(1, self.num_steps - 1)
        low, high = table[upper - 1], table[upper]
        share = (sigma / low).log() / (high / low).log()
        return upper - 1 + share.clamp(0, 1)


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """The cosine schedule: ᾱ_t = f(t + 1)/f(0), f(t) = cos²(((t/T + s)/(1 + s)) π/2).

    β_t = min(1 − f(t + 1)/f(t), max_beta), and ᾱ is the product of the clipped 1 − β: with the
    usual options only the last step is clipped. Time step t stands at f's time t + 1, so that
    t = 0 already holds a little noise.

    Caution: the last steps are almost pure noise. At T = 1000, σ is 1.01 at t = 499, 64 at 989
    and 20,291 at 999.

    Reference: Nichol & Dhariwal 2021, Improved denoising diffusion probabilistic models, eq. 17.

    Args:
        num_steps: T, the number of time steps.
        s: offset that keeps the first steps from being too small, positive.
        max_beta: the largest β, in (0, 1).

    Raises:
        ValueError: where an option is out of range.
    """

    s: float = 0.008
    max_beta: float = 0.999

    def _check_options(self) -> None:
        if not 0 < self.s < math.inf:
            raise ValueError(f"s must be positive and finite, not {self.s!r}; 0.008 is usual")
        if not 0 < self.max_beta < 1:
            raise ValueError(f"max_beta must lie in (0, 1), not {self.max_beta!r}; 0.999 is usual")

    @cached_property
    def _unclipped(self) -> Tensor:
        """1 − f(t + 1)/f(t), float64 ``(T,)``."""
        time = torch.arange(self.num_steps + 1, dtype=torch.float64) / self.num_steps
        f = torch.cos((time + self.s) / (1 + self.s) * (math.pi / 2)).square()  # (T + 1,)
        return 1 - f[1:] / f[:-1]

    def _variances(self) -> Tensor:
        return self._unclipped.clamp(max=self.max_beta)

    @cached_property
    def _last_unclipped_sigma(self) -> float:
        """σ of the last step whose β was not clipped: the closed form holds up to it."""
        exact = int((self._unclipped <= self.max_beta).sum())
        return float(self.sigmas[exact - 1]) if exact else 0.0

    def time_of_sigma(self, sigma: Tensor) -> Tensor:
        """The continuous time t(σ), in units of time steps: t(σ_i) = i exactly for every step i.

        Where no β was clipped it is the inverse of the schedule,

            (t + 1)/T = (1 + s)(2/π) arccos √(f(0)/(1 + σ²)) − s,

        and linear in log σ between the steps beyond. Outside [σ_0, σ_{T−1}] it is held at 0 or
        T − 1, where a model was trained.

        Args:
            sigma: noise-to-signal ratios, floating point, of any shape.

        Returns:
            Times in [0, T − 1], of sigma's shape, dtype and device.
        """
        interpolated = super().time_of_sigma(sigma)
        start = self.s / (1 + self.s) * (math.pi / 2)
        # arccos √(f(0)/(1 + σ²)) as an arctangent, which keeps its digits at small σ
        tangent = (sigma.square() + math.sin(start) ** 2).sqrt() / math.cos(start)
        angle = torch.atan(tangent)
        closed = self.num_steps * ((1 + self.s) * (2 / math.pi) * angle - self.s) - 1
        on_grid = interpolated == interpolated.round()
        return torch.where(on_grid | (sigma >= self._last_unclipped_sigma), interpolated, closed)


@dataclass(frozen=True)
class LinearSchedule(Schedule):
    """The linear schedule: β_t rises linearly from β_start to β_end over 1000 steps.

    For another number of steps both ends are scaled by 1000/T, so that the whole process adds
    about the same noise.

    Reference: Ho et al. 2020, Denoising diffusion probabilistic models, section 4.

    Args:
        num_steps: T, the number of time steps.
        beta_start: the first β of the 1000-step schedule.
        beta_end: the last β of the 1000-step schedule.

    Raises:
        ValueError: where the betas are not 0 < beta_start ≤ beta_end, or reach 1 when scaled.
    """

    beta_start: float = 1e-4
    beta_end: float = 0.02

    def _check_options(self) -> None:
        if not 0 < self.beta_start <= self.beta_end < math.inf:
            raise ValueError(
                "betas must satisfy 0 < beta_start <= beta_end; got "
                f"beta_start={self.beta_start!r}, beta_end={self.beta_end!r}"
            )
        largest = float(self._variances()[-1])
        if not largest < 1:
            raise ValueError(
                f"every beta must be below 1: with num_steps={self.num_steps} the ends are scaled "
                f"by {1000 / self.num_steps:g} and the largest is {largest:g}. Use more than "
                f"{math.floor(1000 * self.beta_end)} steps or a smaller beta_end."
            )

    def _variances(self) -> Tensor:
        scale = 1000 / self.num_steps
        start, end = scale * self.beta_start, scale * self.beta_end
        return torch.linspace(start, end, self.num_steps, dtype=torch.float64)
