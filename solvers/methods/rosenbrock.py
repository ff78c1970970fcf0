"""Rosenbrock steps: linearly implicit, for stiff fields of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from solvers.fields.base import VectorField, check_like, evaluate
from solvers.fields.jacobians import derivatives, is_free, rows_are_known
from solvers.methods.arithmetic import Increment, combine, later
from solvers.methods.base import BoundMethod, StepResult, TableauMethod
from solvers.methods.interpolation import Path, undivided
from solvers.methods.rosenbrock_tableaus import RosenbrockTableau


@dataclass(frozen=True)
class Rosenbrock(TableauMethod):
    """A Rosenbrock step out of its tableau (see :class:`RosenbrockTableau` for the equations).

    Of every step the Jacobian of each sample is made anew, and factored once: an evaluation of the
    field and, unless the field knows its Jacobian (:class:`solvers.JacobianField`), a pullback for
    each of the n elements of a sample, all in one sweep; then O(n^3) for its LU factors.

    Where equal steps are taken, rows of a plain function may depend on each other, which the
    derivative shows: such a step is made with all of them as one system. (Under error control they
    are refused.) Where it cannot be seen, under vmap and torch.compile, they are taken for one
    system unless the field says that they are not (:class:`solvers.ParameterisedField`).

    Args:
        tableau: the coefficients.
    """

    tableau: RosenbrockTableau

    jacobians = 1
    compilable = False

    @property
    def stages(self) -> int:  # type: ignore[override]
        return self.tableau.stages + 1  # that of the Jacobian

    @property
    def error_order(self) -> int | None:  # type: ignore[override]
        low = self.tableau.embedded_order
        return None if low is None else min(self.order, low) + 1

    @property
    def first_same_as_last(self) -> bool:  # type: ignore[override]
        return self.tableau.first_same_as_last

    @property
    def needs_end(self) -> bool:
        return False

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> StepResult:
        return self.bind(field).step(t, y, dt, first)

    def error(self, result: StepResult, dt: Increment) -> Tensor:
        return combine(self.tableau.error_weights, result.slopes)

    def path(
        self, field: VectorField, y: Tensor, dt: Increment, first: Tensor, result: StepResult
    ) -> Path:
        return Path(y, dt, partial(undivided, self.tableau.interpolant), result.slopes)

    def bind(
        self, field: VectorField, *, controlled: bool = False, bounded: bool = False
    ) -> BoundMethod:
        self.check(field)
        return _BoundRosenbrock(self, field, independent=controlled or rows_are_known(field))


class _BoundRosenbrock(BoundMethod):
    """Knows whether rows may depend on each other.

    Attributes:
        independent: whether it is known that they do not.
    """

    method: Rosenbrock

    def __init__(self, method: Rosenbrock, field: VectorField, *, independent: bool) -> None:
        super().__init__(method, field)
        self.independent = independent

    def on(self, field: VectorField) -> BoundMethod:
        return _BoundRosenbrock(self.method, field, independent=self.independent)

    @property
    def stages(self) -> int:
        return self.method.stages - is_free(self.field)

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> StepResult:
        tableau, wide = self.method.tableau, torch.promote_types(y.dtype, torch.float32)
        # Of a graph that ends in this step alone the result is to know nothing.
        onwards = torch.is_grad_enabled() and any(x.requires_grad for x in (t, y, first))
        solve, in_time = self._linear_solve(t, y, dt, wide, onwards)
        start, inner, value = y.to(wide), y, first
        unknowns: list[Tensor] = []  # u_i
        rows = zip(((), *tableau.a), ((), *tableau.coupling), tableau.c, tableau.time, strict=True)
        for a, coupling, node, time in rows:
            if unknowns:
                inner = _plus(start, a, unknowns).to(y.dtype)
                value = evaluate(self.field, later(t, node, dt), inner)
            right = value.to(wide)
            if any(coupling):
                right = right + combine(coupling, unknowns) / dt
            if in_time is not None and time:
                right = right + in_time * (time * dt)
            unknowns.append(solve(right))
        slopes = tuple(unknown.to(y.dtype) for unknown in unknowns)
        if tableau.first_same_as_last:
            return StepResult(inner, None, value, slopes)
        y1 = _plus(start, tableau.b, unknowns).to(y.dtype)
        return StepResult(check_like(y1, y, "a Rosenbrock step"), None, None, slopes)

    def _linear_solve(
        self, t: Tensor, y: Tensor, dt: Increment, wide: torch.dtype, onwards: bool
    ) -> tuple[_Solve, Tensor | None]:
        """(I/(dt gamma) - J)^-1 as a function of the state's shape, and df/dt."""
        found = derivatives(self.field, t, y, onwards=onwards, independent=self.independent)
        matrix = -found.in_state.to(wide)  # (B, n, n); (1, B n, B n) for all rows together
        scale = 1 / (dt * self.method.tableau.gamma)
        if isinstance(scale, Tensor):
            scale = scale.to(wide).expand(y.shape).reshape(*matrix.shape[:2])
            matrix = matrix + torch.diag_embed(scale)
        else:
            matrix = matrix + scale * torch.eye(matrix.shape[1], dtype=wide, device=y.device)
        # Unchecked: what is singular gives an infinity, which the step-size rule sees.
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)
        in_time = None if found.in_time is None else found.in_time.to(wide)
        return _Solve(factors, pivots), in_time


class _Solve:
    """The linear solve of a step, out of its LU factors."""

    def __init__(self, factors: Tensor, pivots: Tensor) -> None:
        self.factors, self.pivots = factors, pivots

    def __call__(self, right: Tensor) -> Tensor:
        columns = right.reshape(*self.factors.shape[:2], 1)  # (B, n, 1)
        return torch.linalg.lu_solve(self.factors, self.pivots, columns).view(right.shape)


def _plus(y: Tensor, weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    """y + sum_i weights_i values_i."""
    for weight, value in zip(weights, values, strict=True):
        if weight:
            y = torch.add(y, value, alpha=weight)
    return y
