"""States between the steps, for ``t_eval`` and events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from solvers.methods.arithmetic import Increment, axpy, combine


@dataclass(frozen=True)
class Path:
    """The states within one step from t to t + dt.

    Attributes:
        y: the state at t.
        dt: the size of the step.
        formula: ``formula(theta, dt, y, *values)``, the state at t + theta dt.
        values: what else it is made of, each with a row a sample.
    """

    y: Tensor
    dt: Increment
    formula: Callable[..., Tensor]
    values: tuple[Tensor, ...]

    def select(self, rows: Tensor) -> Path:
        """Some of the samples, repeated where a row is asked for twice."""
        dt = self.dt[rows] if isinstance(self.dt, Tensor) else self.dt
        return Path(self.y[rows], dt, self.formula, tuple(value[rows] for value in self.values))

    def detach(self) -> Path:
        """The same without gradients."""
        dt = self.dt.detach() if isinstance(self.dt, Tensor) else self.dt
        values = tuple(value.detach() for value in self.values)
        return Path(self.y.detach(), dt, self.formula, values)

    def at(self, theta: float | Tensor) -> Tensor:
        """The state at t + theta dt; ``theta`` a number or ``(n, 1, ..., 1)``."""
        return self.formula(theta, self.dt, self.y, *self.values)

    def collected(self) -> Path:
        """The same path but for rounding, for many fractions: with its powers of theta collected.

        Then each costs a few kernels, and not some for every stage.
        """
        formula, dt = self.formula, self.dt
        if not isinstance(formula, partial) or formula.func not in {polynomial, undivided}:
            return self
        (rows,) = formula.args
        columns = zip(*(_padded(row, max(map(len, rows))) for row in rows), strict=True)
        sums = [combine(column, self.values) if any(column) else None for column in columns]
        powers = [torch.zeros_like(self.y) if each is None else each for each in sums]
        if formula.func is polynomial:
            powers = [each * dt for each in powers]
        return Path(self.y, dt, _horner, tuple(powers))


def line(theta: float | Tensor, dt: Increment, y: Tensor, y1: Tensor) -> Tensor:
    """A straight line, which does not worsen a method of order 1."""
    return torch.lerp(y, y1, theta.to(y.dtype).expand_as(y) if isinstance(theta, Tensor) else theta)


def hermite(
    theta: float | Tensor, dt: Increment, y: Tensor, y1: Tensor, slope: Tensor, slope1: Tensor
) -> Tensor:
    """The cubic through the states and slopes at both ends.

    Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, section II.6.
    """
    dt = dt.to(y.dtype) if isinstance(dt, Tensor) else dt
    bent = (1 - 2 * theta) * (y1 - y) + ((theta - 1) * dt) * slope + (theta * dt) * slope1
    return line(theta, dt, y, y1) + (theta * (theta - 1)) * bent


def polynomial(
    coefficients: Sequence[Sequence[float]],
    theta: float | Tensor,
    dt: Increment,
    y: Tensor,
    *slopes: Tensor,
) -> Tensor:
    """A method's own dense output, y + dt sum_i k_i sum_j p_ij theta^(j+1)."""
    for row, slope in zip(coefficients, slopes, strict=True):
        if any(row):
            weight: float | Tensor = 0.0
            for coefficient in reversed(row):
                weight = (weight + coefficient) * theta
            y = axpy(y, 1.0, weight * dt, slope)
    return y


def undivided(
    coefficients: Sequence[Sequence[float]],
    theta: float | Tensor,
    dt: Increment,
    y: Tensor,
    *values: Tensor,
) -> Tensor:
    """The same of values that have dt in them."""
    return polynomial(coefficients, theta, 1.0, y, *values)


def _padded(row: Sequence[float], length: int) -> tuple[float, ...]:
    return (*row, *[0.0] * (length - len(row)))


def _horner(theta: Tensor, dt: Increment, y: Tensor, *powers: Tensor) -> Tensor:
    """y + sum_j c_j theta^(j+1)."""
    total = powers[-1]
    for power in (*reversed(powers[:-1]), y):
        total = torch.addcmul(power, total, theta)
    return total
