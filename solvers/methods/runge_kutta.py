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
    _numbers: _Numbers | None = None
    _slopes: _Slopes | None = None  # kept from step to step
    _written = False  # whether it holds those of the step made last

    def on(self, field: VectorField) -> BoundMethod:
        bound = _InPlace(self.method, field)
        bound._numbers = self._numbers
        return bound

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> StepResult:
        followed = torch.is_grad_enabled() or is_dual(y) or is_dual(first)
        self._written = not followed and isinstance(dt, Tensor)
        if followed or not isinstance(dt, Tensor):
            # A number, where it is one: fewer kernels, on the way back above all.
            one = isinstance(dt, Tensor) and dt.numel() == 1
            return super().step(t, y, float(dt) if one else dt, first)
        kept, flat, shape = self._slopes, y.reshape(-1), y.shape
        if kept is None or kept.shape != shape:
            if self._numbers is None:
                self._numbers = _numbers(self.method.tableau, y.dtype, y.device)
            kept = self._slopes = _Slopes(self._numbers, y)
        slopes = [first]
        # Of a field that takes no notice of it there is one time.
        times = torch.addcmul(t, kept.nodes, dt).unbind() if t.ndim else (t,) * len(kept.parts)
        for row, part, into, time in zip(kept.rows, kept.parts, kept.each, times, strict=False):
            torch.mul(slopes[-1], dt, out=into)
            inner = torch.addmv(flat, part, row).view(shape)
            slopes.append(evaluate(self.field, time, inner))
        torch.mul(slopes[-1], dt, out=kept.each[-1])
        if self.method.first_same_as_last:
            return StepResult(inner, None, slopes[-1], tuple(slopes))
        y1 = torch.addmv(flat, kept.matrix, kept.rows[-2]).view(shape)
        return StepResult(y1, None, None, tuple(slopes))

    def error(self, result: StepResult, dt: Increment) -> Tensor:
        if not self._written or self._slopes is None:
            return super().error(result, dt)
        return torch.mv(self._slopes.matrix, self._slopes.rows[-1]).view(result.y.shape)


class _Slopes:
    """The slopes of one step, times dt, and the views on them that its stages use.

    Attributes:
        shape: of y.
        each: one by one, of that shape.
        matrix: all of them, ``(elements, stages)``.
        parts: the first of them, for every stage after the first.
        rows: the rows of a, b and the error weights.
        nodes: c of every stage after the first, ``(stages - 1, 1, ..., 1)``.
    """

    def __init__(self, numbers: _Numbers, y: Tensor) -> None:
        self.rows, nodes = numbers
        self.shape = y.shape
        stages = len(nodes) + 1
        scaled = y.new_empty((stages, *y.shape))
        self.each = scaled.unbind()
        self.matrix = matrix = scaled.view(stages, -1).t()
        self.parts = [matrix.narrow(1, 0, count) for count in range(1, stages)]
        self.nodes = nodes.view(-1, *[1] * y.ndim)


_Numbers = tuple[tuple[Tensor, ...], Tensor]


@cache
def _numbers(tableau: ButcherTableau, dtype: torch.dtype, device: torch.device) -> _Numbers:
    """The rows of a, b and the error weights as vectors; the nodes after the first."""
    rows = (*tableau.a, tableau.b, tableau.error_weights or (), tableau.c[1:])
    *vectors, nodes = (torch.tensor(row, dtype=dtype, device=device) for row in rows)
    return tuple(vectors), nodes
