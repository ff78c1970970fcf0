"""States between the steps, for ``t_eval`` and events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from solvers.methods.arithmetic import Increment, axpy


class Path(Protocol):
    """The states within one step from t to t + dt."""

    @property
    def y(self) -> Tensor:
        """The state at t."""

    @property
    def dt(self) -> Increment:
        """The size of the step."""

    def select(self, rows: Tensor) -> Path:
        """Some of the samples, repeated where a row is asked for twice."""

    def at(self, theta: float | Tensor) -> Tensor:
        """The state at t + theta dt; ``theta`` a number or ``(n, 1, ..., 1)``."""


@dataclass(frozen=True)
class Interpolant:
    """A polynomial in time.

    Linear for a method of order 1, which it does not worsen; the method's own polynomial where it
    has one; cubic Hermite otherwise (Hairer, Nørsett & Wanner, Solving Ordinary Differential
    Equations I, section II.6).

    Attributes:
        y, y1: states at both ends.
        dt: the size of the step.
        ends: dy/dt at both ends, for cubic Hermite.
        slopes: the evaluations of the step, for the method's own polynomial.
        coefficients: of that polynomial.
    """

    y: Tensor
    y1: Tensor
    dt: Increment
    ends: tuple[Tensor, Tensor] | None = None
    slopes: tuple[Tensor, ...] = ()
    coefficients: tuple[tuple[float, ...], ...] | None = None

    def select(self, rows: Tensor) -> Interpolant:
        return Interpolant(
            self.y[rows],
            self.y1[rows],
            self.dt[rows] if isinstance(self.dt, Tensor) else self.dt,
            None if self.ends is None else (self.ends[0][rows], self.ends[1][rows]),
            tuple(slope[rows] for slope in self.slopes),
            self.coefficients,
        )

    def at(self, theta: float | Tensor) -> Tensor:
        if self.coefficients is not None:
            return self._polynomial(theta)
        if isinstance(theta, Tensor):
            line = torch.lerp(self.y, self.y1, theta.to(self.y.dtype).expand_as(self.y))
        else:
            line = torch.lerp(self.y, self.y1, theta)
        if self.ends is None:
            return line
        dt = self.dt.to(self.y.dtype) if isinstance(self.dt, Tensor) else self.dt
        bent = (
            (1 - 2 * theta) * (self.y1 - self.y)
            + ((theta - 1) * dt) * self.ends[0]
            + (theta * dt) * self.ends[1]
        )
        return line + (theta * (theta - 1)) * bent

    def _polynomial(self, theta: float | Tensor) -> Tensor:
        """y + dt sum_i k_i sum_j p_ij theta^(j+1)."""
        state = self.y
        for row, slope in zip(self.coefficients or (), self.slopes, strict=True):
            if not any(row):
                continue
            weight: float | Tensor = 0.0
            for coefficient in reversed(row):
                weight = (weight + coefficient) * theta
            state = axpy(state, 1.0, weight * self.dt, slope)
        return state
