"""One step of a method, from t to t + dt.

``dt`` is a float where all samples share it, or a tensor ``(B, 1, ..., 1)`` of the state's
dtype where every sample has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from solvers.fields import SemilinearField, VectorField, check_like
from solvers.tableau import ButcherTableau

Increment = float | Tensor


def axpy(y: Tensor, scale: float, dt: Increment, x: Tensor) -> Tensor:
    """y + scale * dt * x in one kernel."""
    if isinstance(dt, Tensor):
        return torch.addcmul(y, x, dt, value=scale)
    return torch.add(y, x, alpha=scale * dt)


class Method(Protocol):
    """How one step is made; stateless."""

    @property
    def order(self) -> int:
        """Order of convergence."""

    @property
    def stages(self) -> int:
        """Evaluations a step."""

    def check(self, field: VectorField) -> None:
        """Raise ValueError where the method cannot solve this field."""

    def first(self, field: VectorField, t: Tensor, y: Tensor) -> Tensor:
        """The first evaluation of a step, made before the step size is chosen."""

    def derivative(self, field: VectorField, y: Tensor, first: Tensor) -> Tensor:
        """dy/dt at the start of the step, out of the first evaluation."""

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> Tensor:
        """The state at t + dt."""


@dataclass(frozen=True)
class RungeKutta:
    """An explicit Runge-Kutta step out of its tableau."""

    tableau: ButcherTableau

    @property
    def order(self) -> int:
        return self.tableau.order

    @property
    def stages(self) -> int:
        return self.tableau.stages

    def check(self, field: VectorField) -> None:
        if not callable(field):
            raise ValueError(f"field must be callable as field(t, y), not {type(field).__name__}")

    def first(self, field: VectorField, t: Tensor, y: Tensor) -> Tensor:
        return check_like(field(t, y), y, "field(t, y)")

    def derivative(self, field: VectorField, y: Tensor, first: Tensor) -> Tensor:
        return first

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> Tensor:
        slopes = [first]
        for row, node in zip(self.tableau.a, self.tableau.c[1:], strict=True):
            inner = y
            for weight, slope in zip(row, slopes, strict=True):
                if weight:
                    inner = axpy(inner, weight, dt, slope)
            slopes.append(check_like(field(t + node * dt, inner), y, "field(t, y)"))
        for weight, slope in zip(self.tableau.b, slopes, strict=True):
            if weight:
                y = axpy(y, weight, dt, slope)
        return y


@dataclass(frozen=True)
class Relaxation:
    """One step of a semilinear field towards its target: y1 = y + w(dt/tau) (target - y).

    The weight w tells the methods apart: z is explicit Euler, 1 - exp(-z) exponential Euler,
    z / (1 + z) semi-implicit Euler.

    Args:
        name: for messages.
        weight: w as a function of z.
        weight_slope: dw/dz as a function of w.
    """

    name: str
    weight: Callable[[Tensor], Tensor]
    weight_slope: Callable[[Tensor], Tensor]
    order: int = 1
    stages: int = 1

    def check(self, field: VectorField) -> None:
        if not isinstance(field, SemilinearField):
            raise ValueError(
                f"{self.name} needs a SemilinearField, dy/dt = (target(t, y) - y) / tau; "
                f"it was given {type(field).__name__}. Wrap the field as "
                "solvers.SemilinearField(target, tau), or take a general method such as heun."
            )

    def first(self, field: VectorField, t: Tensor, y: Tensor) -> Tensor:
        return check_like(cast(SemilinearField, field).target(t, y), y, "field.target(t, y)")

    def derivative(self, field: VectorField, y: Tensor, first: Tensor) -> Tensor:
        return (first - y) * cast(SemilinearField, field).rate

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> Tensor:
        z = torch.as_tensor(cast(SemilinearField, field).rate * dt, dtype=y.dtype, device=y.device)
        weight = self.weight(z).to(y.dtype)  # CUDA's autocast takes expm1 in float32
        return torch.lerp(y, first, weight.expand_as(y))
