"""Methods of a user's own, as the README shows how to write them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import solvers

KUTTA3 = solvers.RungeKutta(
    solvers.ButcherTableau(
        a=((0.5,), (-1.0, 2.0)), b=(1 / 6, 2 / 3, 1 / 6), c=(0.0, 0.5, 1.0), order=3
    )
)


class Kutta3(solvers.NativeSolver, method=KUTTA3):
    """Kutta's third-order method."""


class ShuOsherStep(solvers.Method):
    """Shu and Osher's third-order step, of averages of Euler steps."""

    order, stages = 3, 3

    def step(
        self, field: Any, t: Tensor, y: Tensor, dt: float | Tensor, first: Tensor
    ) -> solvers.StepResult:
        u = y + dt * first
        u = 0.75 * y + 0.25 * (u + dt * field(t + dt, u))
        return solvers.StepResult(y / 3 + 2 / 3 * (u + dt * field(t + dt / 2, u)))


class ShuOsher(solvers.NativeSolver, method=ShuOsherStep()):
    """Strong-stability-preserving Runge-Kutta, order 3."""


class TrapezoidStep(solvers.Method):
    """Heun's step, which knows its error and its last evaluation."""

    order, stages, error_order = 2, 2, 2

    def step(
        self, field: Any, t: Tensor, y: Tensor, dt: float | Tensor, first: Tensor
    ) -> solvers.StepResult:
        change = (field(t + dt, y + dt * first) - first) * dt / 2
        return solvers.StepResult(y + dt * first + change, error=change)


class Trapezoid(solvers.NativeSolver, method=TrapezoidStep(), step_size=solvers.PID()):
    """Heun's method with error control."""


class LawsonStep(solvers.SemilinearMethod):
    """Midpoint with the leak taken out by its exponential (Lawson 1967)."""

    name, order, stages = "lawson", 2, 2

    def step(
        self, field: Any, t: Tensor, y: Tensor, dt: float | Tensor, first: Tensor
    ) -> solvers.StepResult:
        half = torch.exp(-torch.as_tensor(field.rate * dt / 2)).to(y.dtype)
        middle = half * (y + dt / 2 * field.rate * first)
        target = field.target(t + dt / 2, middle.to(y.dtype))
        return solvers.StepResult((half * half * y + half * dt * field.rate * target).to(y.dtype))


class Lawson(solvers.NativeSolver, method=LawsonStep()):
    """Exponential midpoint of Lawson."""
