"""Explicit Runge-Kutta steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import cast

import torch
from torch import Tensor

from solvers.checks import is_dual
from solvers.fields.base import RelaxationField, VectorField, evaluate
from solvers.methods.arithmetic import Increment, advance, combine, later
from solvers.methods.base import BoundMethod, StepResult, TableauMethod
from solvers.methods.interpolation import Path, polynomial
from solvers.methods.relaxation import BOUNDED_EULER, EXPLICIT_EULER
from solvers.methods.tableaus import EULER, ButcherTableau


@dataclass(frozen=True)
class RungeKutta(TableauMethod):
    """An explicit Runge-Kutta step out of its tableau."""

    tableau: ButcherTableau

    @property
    def first_same_as_last(self) -> bool:  # type: ignore[override]
        return self.tableau.first_same_as_last

    @property
    def needs_end(self) -> bool:
        return self.order > 1 and self.tableau.interpolant is None

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> StepResult:
        tableau = self.tableau
        slopes = [first]
        inner = y
        for row, node in zip(tableau.a, tableau.c[1:], strict=True):
            inner = advance(y, dt, row, slopes)
            slopes.append(evaluate(field, later(t, node, dt), inner))
        if tableau.first_same_as_last:
            return StepResult(inner, None, slopes[-1], tuple(slopes))
        return StepResult(advance(y, dt, tableau.b, slopes), None, None, tuple(slopes))

    def error(self, result: StepResult, dt: Increment) -> Tensor:
        weights = cast(tuple[float, ...], self.tableau.error_weights)
        return combine(weights, result.slopes) * dt

    def path(
        self, field: VectorField, y: Tensor, dt: Increment, first: Tensor, result: StepResult
    ) -> Path:
        if self.tableau.interpolant is None:
            return super().path(field, y, dt, first, result)
        return Path(y, dt, partial(polynomial, self.tableau.interpolant), result.slopes)

    def bind(
        self, field: VectorField, *, controlled: bool = False, bounded: bool = False
    ) -> BoundMethod:
        if self.tableau == EULER and isinstance(field, RelaxationField):
            # Unbounded the same step, in fewer passes.
            return (BOUNDED_EULER if bounded else EXPLICIT_EULER).bind(field)
        self.check(field)
        return (_InPlace if controlled else BoundMethod)(self, field)


class _InPlace(BoundMethod):
    """Forms the stages out of one array of slopes, where no gradient is recorded.

    A matrix-vector product per stage then takes the place of a kernel per coefficient, which is
    what a small batch pays for. Autograd needs every slope as it was, and forward mode writes into
    no array that is given, so there it is not done.
    """

    method: RungeKutta
    _matrix: Tensor | None = None  # the slopes times dt, (elements, stages)

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> StepResult:
        followed = torch.is_grad_enabled() or is_dual(y) or is_dual(first)
        if followed or not isinstance(dt, Tensor):
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
            slopes.append(evaluate(self.field, later(t, node, dt), inner))
        torch.mul(slopes[-1], dt, out=scaled[-1])
        self._matrix = matrix
        if tableau.first_same_as_last:
            return StepResult(inner, None, slopes[-1], tuple(slopes))
        y1 = torch.addmv(flat, matrix, rows[-2]).view_as(y)
        return StepResult(y1, None, None, tuple(slopes))

    def error(self, result: StepResult, dt: Increment) -> Tensor:
        if self._matrix is None:
            return super().error(result, dt)
        y = result.y
        weights = _rows(self.method.tableau, y.dtype, y.device)[-1]
        return torch.mv(self._matrix, weights).view_as(y)


@cache
def _rows(tableau: ButcherTableau, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """The rows of a, b and the error weights as vectors."""
    rows = (*tableau.a, tableau.b, tableau.error_weights or ())
    return tuple(torch.tensor(row, dtype=dtype, device=device) for row in rows)
