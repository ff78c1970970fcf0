"""Methods of a user's own, as the README shows how to write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import solvers


@dataclass(frozen=True)
class Kutta3(solvers.NativeSolver):
    """Kutta's third-order method."""

    method = solvers.RungeKutta(
        solvers.ButcherTableau(
            a=((0.5,), (-1.0, 2.0)), b=(1 / 6, 2 / 3, 1 / 6), c=(0.0, 0.5, 1.0), order=3
        )
    )


class ShuOsherStep(solvers.Method):
    """Shu and Osher's third-order step, of averages of Euler steps."""

    order, stages = 3, 3

    def step(
        self, field: Any, t: Tensor, y: Tensor, dt: float | Tensor, first: Tensor
    ) -> solvers.Attempt:
        u = y + dt * first
        u = 0.75 * y + 0.25 * (u + dt * field(t + dt, u))
        return solvers.Attempt(y / 3 + 2 / 3 * (u + dt * field(t + dt / 2, u)))


@dataclass(frozen=True)
class ShuOsher(solvers.NativeSolver):
    """Strong-stability-preserving Runge-Kutta, order 3."""

    method = ShuOsherStep()


class TrapezoidStep(solvers.Method):
    """Heun's step, which knows its error and its last evaluation."""

    order, stages, error_order = 2, 2, 2

    def step(
        self, field: Any, t: Tensor, y: Tensor, dt: float | Tensor, first: Tensor
    ) -> solvers.Attempt:
        change = (field(t + dt, y + dt * first) - first) * dt / 2
        return solvers.Attempt(y + dt * first + change, error=change)


@dataclass(frozen=True)
class Trapezoid(solvers.NativeSolver):
    """Heun's method with error control."""

    steps: int | None = None
    step_size: solvers.StepSizeRule = solvers.PID()
    method = TrapezoidStep()


class LawsonStep(solvers.SemilinearMethod):
    """Midpoint with the leak taken out by its exponential (Lawson 1967)."""

    name, order, stages = "lawson", 2, 2

    def step(
        self, field: Any, t: Tensor, y: Tensor, dt: float | Tensor, first: Tensor
    ) -> solvers.Attempt:
        half = torch.exp(-torch.as_tensor(field.rate * dt / 2)).to(y.dtype)
        middle = half * (y + dt / 2 * field.rate * first)
        target = field.target(t + dt / 2, middle.to(y.dtype))
        return solvers.Attempt((half * half * y + half * dt * field.rate * target).to(y.dtype))


@dataclass(frozen=True)
class Lawson(solvers.NativeSolver):
    """Exponential midpoint of Lawson."""

    method = LawsonStep()
