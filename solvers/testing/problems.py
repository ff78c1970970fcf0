"""Fields with known solutions, in the form that the solver under test takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers.fields.base import SemilinearField, VectorField
from solvers.fields.batch_parts import ParameterisedField, Rows


@dataclass(frozen=True)
class Logistic:
    """dy/dt = r cos(t) y (1 - y), element by element: y / (1 - y) grows by exp(r sin t).

    Attributes:
        rate: r of each sample, ``(B, 1, ..., 1)``.
        broken: 1 for samples whose dy/dt is infinite after t = 0, ``(B, 1, ..., 1)``.
    """

    rate: Tensor
    broken: Tensor | None = None

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        broken = torch.zeros_like(self.rate) if self.broken is None else self.broken
        return self.rate, broken

    @staticmethod
    def drift(t: Tensor, y: Tensor, rate: Tensor, broken: Tensor) -> Tensor:
        # An infinity by division, whose derivative is not finite either.
        whole = 1 - ((broken > 0) & (t > 0)).to(y.dtype)
        return (rate * torch.cos(t)).to(y.dtype) * y * (1 - y) / whole

    def exact(self, y0: Tensor, t: Tensor | float) -> Tensor:
        """The state at t, from t = 0."""
        growth = torch.exp(self.rate * torch.sin(torch.as_tensor(t, dtype=y0.dtype)))
        return y0 * growth / (1 - y0 + y0 * growth)


@dataclass(frozen=True)
class Swirl:
    """A circle of radius 1 that attracts, turned ever faster; states ``(B, 2)``.

    dy/dt = (1 - |y|^2) y / 2 + 3 (1 + t/2) J y, J the quarter turn. Coupled, nonlinear and
    dependent on t, so that no condition on the coefficients of a method is met by accident; of
    these rates, so that the leading term of the error of order 1 to 5 stands out.
    """

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        return ()

    @staticmethod
    def drift(t: Tensor, y: Tensor) -> Tensor:
        turned = torch.stack([-y[:, 1], y[:, 0]], dim=1)
        drawn = 0.5 * (1 - y.square().sum(1, keepdim=True)) * y
        return drawn + ((3 + 1.5 * t) * turned).to(y.dtype)

    def exact(self, y0: Tensor, t: Tensor | float) -> Tensor:
        """The state at t, from t = 0."""
        time = torch.as_tensor(t, dtype=y0.dtype)
        radius = y0.norm(dim=1, keepdim=True)
        grown = (1 + (radius**-2 - 1) * torch.exp(-time)).rsqrt() / radius
        angle = 3 * time + 0.75 * time**2
        turned = torch.stack([-y0[:, 1], y0[:, 0]], dim=1)
        return grown * (torch.cos(angle) * y0 + torch.sin(angle) * turned)


KnownField = Logistic | Swirl


def field_of(problem: KnownField, y0: Tensor, *, semilinear: bool) -> VectorField:
    """The problem's field; as (target - y) / tau with target = y + tau drift where asked."""
    if not semilinear:
        return ParameterisedField(problem.drift, *problem.arguments)
    tau = 0.4 + 2 * y0  # of each element, and the same whatever else is in the batch

    def target(t: Tensor, y: Tensor, tau: Tensor, *arguments: Tensor) -> Tensor:
        return y + tau * problem.drift(t, y, *arguments)

    return SemilinearField(ParameterisedField(target, tau, *problem.arguments), tau)


def logistic(y0: Tensor) -> Logistic:
    """Samples that ask for very different numbers of steps."""
    rates = torch.linspace(0.2, 5.0, y0.shape[0], dtype=y0.dtype, device=y0.device)
    return Logistic(rates.view(-1, *[1] * (y0.ndim - 1)))


def states(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Initial states for both problems, no two elements the same."""
    return torch.linspace(0.3, 0.8, math.prod(shape), dtype=torch.float64).view(shape).to(dtype)


class CountingField:
    """A field that notes what it is asked for, of itself and of its parts.

    Attributes:
        calls: the (t, y) of each evaluation.
    """

    def __init__(self, function: Any, calls: list[tuple[Any, Tensor]] | None = None) -> None:
        self.function = function
        self.calls: list[tuple[Any, Tensor]] = [] if calls is None else calls

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls.append((t.detach().clone() if isinstance(t, Tensor) else t, y.detach()))
        return self.function(t, y)

    def select(self, rows: Rows) -> CountingField:
        return CountingField(self.function.select(rows), self.calls)

    @property
    def evaluated(self) -> int:
        """How many samples were evaluated, over all calls."""
        return sum(y.shape[0] for _, y in self.calls)


def recorded(
    problem: KnownField, y0: Tensor, *, semilinear: bool
) -> tuple[VectorField, CountingField]:
    """The problem's field, and what records its evaluations (its target's, if semilinear)."""
    field = field_of(problem, y0, semilinear=semilinear)
    if isinstance(field, SemilinearField):
        recorder = CountingField(field.target)
        return SemilinearField(recorder, field.tau), recorder
    recorder = CountingField(field)
    return recorder, recorder
