"""One step of a method, from t to t + dt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, cast

import torch
from torch import Tensor

from solvers.fields.base import VectorField, check_like
from solvers.methods.arithmetic import Increment, advance, combine, later
from solvers.methods.interpolation import Interpolant, Path
from solvers.methods.tableaus import ButcherTableau
from solvers.transforms import under_transform


class Attempt(NamedTuple):
    """What one step came to.

    Attributes:
        y: the state at t + dt.
        error: estimate of the local error, of the shape of y; None where the method has none.
        last: the first evaluation of the next step, where this step has made it already.
        slopes: the evaluations, where the method's own dense output needs them.
    """

    y: Tensor
    error: Tensor | None = None
    last: Tensor | None = None
    slopes: tuple[Tensor, ...] = ()


class Method(ABC):
    """How one step is made: stateless. A subclass gives ``order``, ``stages`` and :meth:`step`."""

    @property
    @abstractmethod
    def order(self) -> int:
        """Order of convergence."""

    @property
    @abstractmethod
    def stages(self) -> int:
        """Evaluations a step, the first one included."""

    @property
    def first_same_as_last(self) -> bool:
        """Whether a step's last evaluation is the first of the next step."""
        return False

    @property
    def error_order(self) -> int | None:
        """The error estimate behaves as dt^error_order; None where the method has none."""
        return None

    @property
    def needs_end(self) -> bool:
        """Whether the states within a step need dy/dt at its end."""
        return self.order > 1

    def check(self, field: VectorField) -> None:
        """Raise ValueError where the method cannot solve this field."""
        if not callable(field):
            raise ValueError(f"field must be callable as field(t, y), not {type(field).__name__}")

    def first(self, field: VectorField, t: Tensor, y: Tensor) -> Tensor:
        """The first evaluation of a step, made before the step size is chosen."""
        return check_like(field(t, y), y, "field(t, y)")

    def derivative(self, field: VectorField, y: Tensor, first: Tensor) -> Tensor:
        """dy/dt at the start of the step, out of the first evaluation."""
        return first

    @abstractmethod
    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> Attempt:
        """The state at t + dt."""

    def error(self, attempt: Attempt, dt: Increment) -> Tensor:
        """The estimate of the local error of a step, of the shape of the state."""
        return cast(Tensor, attempt.error)

    def path(
        self, field: VectorField, y: Tensor, dt: Increment, first: Tensor, attempt: Attempt
    ) -> Path:
        """The states within a step: linear for order 1, else cubic Hermite."""
        if attempt.last is None or self.order == 1:
            return Interpolant(y, attempt.y, dt)
        ends = self.derivative(field, y, first), self.derivative(field, attempt.y, attempt.last)
        return Interpolant(y, attempt.y, dt, ends)

    def bind(self, field: VectorField) -> BoundMethod:
        """The method on one field, for one solve; it may keep what does not change between steps.

        Raises:
            ValueError: where the method cannot solve this field.
        """
        self.check(field)
        return BoundMethod(self, field)


class BoundMethod:
    """A method on one field, for one solve: what the integration loop calls."""

    def __init__(self, method: Method, field: VectorField) -> None:
        self.method = method
        self.field = field

    def first(self, t: Tensor, y: Tensor) -> Tensor:
        return self.method.first(self.field, t, y)

    def derivative(self, y: Tensor, first: Tensor) -> Tensor:
        return self.method.derivative(self.field, y, first)

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> Attempt:
        return self.method.step(self.field, t, y, dt, first)

    def error(self, attempt: Attempt, dt: Increment) -> Tensor:
        """The estimate of the local error of the step made last."""
        return self.method.error(attempt, dt)

    def path(self, y: Tensor, dt: Increment, first: Tensor, attempt: Attempt) -> Path:
        """The states within a step."""
        return self.method.path(self.field, y, dt, first, attempt)


@dataclass(frozen=True)
class RungeKutta(Method):
    """An explicit Runge-Kutta step out of its tableau."""

    tableau: ButcherTableau

    @property
    def order(self) -> int:
        return self.tableau.order

    @property
    def stages(self) -> int:
        return self.tableau.stages

    @property
    def first_same_as_last(self) -> bool:
        return self.tableau.first_same_as_last

    @property
    def error_order(self) -> int | None:
        order = self.tableau.embedded_order
        return None if order is None else order + 1

    @property
    def needs_end(self) -> bool:
        return self.order > 1 and self.tableau.interpolant is None

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> Attempt:
        tableau = self.tableau
        slopes = [first]
        inner = y
        for row, node in zip(tableau.a, tableau.c[1:], strict=True):
            inner = advance(y, dt, row, slopes)
            slopes.append(check_like(field(later(t, node, dt), inner), y, "field(t, y)"))
        if tableau.first_same_as_last:
            return Attempt(inner, None, slopes[-1], tuple(slopes))
        return Attempt(advance(y, dt, tableau.b, slopes), None, None, tuple(slopes))

    def error(self, attempt: Attempt, dt: Increment) -> Tensor:
        weights = cast(tuple[float, ...], self.tableau.error_weights)
        return combine(weights, attempt.slopes) * dt

    def path(
        self, field: VectorField, y: Tensor, dt: Increment, first: Tensor, attempt: Attempt
    ) -> Path:
        if self.tableau.interpolant is None:
            return super().path(field, y, dt, first, attempt)
        return Interpolant(y, attempt.y, dt, None, attempt.slopes, self.tableau.interpolant)

    def bind(self, field: VectorField) -> BoundMethod:
        self.check(field)
        return _BoundRungeKutta(self, field)


class _BoundRungeKutta(BoundMethod):
    """Forms the stages out of one array of slopes, where samples have their own steps.

    A matrix-vector product per stage then takes the place of a kernel per coefficient, which is
    what a small batch pays for. Autograd needs every slope as it was, so there it is not done.
    """

    method: RungeKutta

    def __init__(self, method: RungeKutta, field: VectorField) -> None:
        super().__init__(method, field)
        self._matrix: Tensor | None = None  # the slopes times dt, (elements, stages)

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> Attempt:
        if torch.is_grad_enabled() or not isinstance(dt, Tensor) or under_transform():
            self._matrix = None
            return super().step(t, y, dt, first)
        tableau = self.method.tableau
        scaled = torch.empty((tableau.stages, *y.shape), dtype=y.dtype, device=y.device)
        matrix = scaled.view(tableau.stages, -1).t()
        rows = _rows(tableau, y.dtype, y.device)
        flat = y.reshape(-1)
        slopes = [first]
        for i, node in enumerate(tableau.c[1:]):
            torch.mul(slopes[i], dt, out=scaled[i])
            inner = torch.addmv(flat, matrix[:, : i + 1], rows[i]).view_as(y)
            slopes.append(check_like(self.field(later(t, node, dt), inner), y, "field(t, y)"))
        torch.mul(slopes[-1], dt, out=scaled[-1])
        self._matrix = matrix
        if tableau.first_same_as_last:
            return Attempt(inner, None, slopes[-1], tuple(slopes))
        y1 = torch.addmv(flat, matrix, rows[-2]).view_as(y)
        return Attempt(y1, None, None, tuple(slopes))

    def error(self, attempt: Attempt, dt: Increment) -> Tensor:
        if self._matrix is None:
            return super().error(attempt, dt)
        y = attempt.y
        weights = _rows(self.method.tableau, y.dtype, y.device)[-1]
        return torch.mv(self._matrix, weights).view_as(y)


@cache
def _rows(tableau: ButcherTableau, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """The rows of a, b and the error weights as vectors."""
    rows = (*tableau.a, tableau.b, tableau.error_weights or ())
    return tuple(torch.tensor(row, dtype=dtype, device=device) for row in rows)
