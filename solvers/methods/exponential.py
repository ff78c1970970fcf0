"""Exponential Runge-Kutta methods: the leak of a semilinear field is solved exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from solvers.fields.base import VectorField
from solvers.methods.arithmetic import Increment, combine
from solvers.methods.base import BoundMethod, StepResult, TableauMethod
from solvers.methods.exponential_tableaus import ExponentialTableau
from solvers.methods.interpolation import Path
from solvers.methods.semilinear import BoundWeights, SemilinearMethod, step_ratio


@dataclass(frozen=True)
class ExponentialRungeKutta(TableauMethod, SemilinearMethod):
    """An explicit exponential Runge-Kutta step out of its tableau.

    Args:
        name: for messages.
        tableau: the coefficients.
    """

    name: str
    tableau: ExponentialTableau

    @property
    def needs_end(self) -> bool:
        return False

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> StepResult:
        return self.bind(field).step(t, y, dt, first)

    def bind(
        self, field: VectorField, *, controlled: bool = False, bounded: bool = False
    ) -> BoundMethod:
        self.check(field)
        return _BoundExponential(self, field)


class _BoundExponential(BoundWeights):
    method: ExponentialRungeKutta

    def weigh(self, dt: Increment, y: Tensor) -> list[Weights]:
        """Of the stages after the first, of the result, and of its error where it has one."""
        tableau, ratio = self.method.tableau, step_ratio(self.field, dt, y)
        rows: list[tuple[Row, float]] = [*zip(tableau.a, tableau.c[1:], strict=True)]
        rows.append((tableau.b, 1.0))
        if tableau.embedded is not None:
            pairs = zip(tableau.b, tableau.embedded, strict=True)
            rows.append(([[x - low for x, low in zip(*pair, strict=True)] for pair in pairs], 1.0))
        at_nodes = {}
        for node in {c for _, c in rows}:
            z = -node * ratio
            phis = phi_functions(z, _highest([row for row, c in rows if c == node]))
            at_nodes[node] = (-torch.expm1(z)).to(y.dtype), phis
        return [(at_nodes[c][0], _weights(row, at_nodes[c][1], ratio, y)) for row, c in rows]

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> StepResult:
        nodes, weights = self.method.tableau.c[1:], self.weights(dt, y)
        changes: list[Tensor] = []  # targets less the first
        for c, own in zip(nodes, weights[: len(nodes)], strict=True):
            changes.append(self.first(t + c * dt, _stage(y, first, own, changes)) - first)
        error = None
        if self.method.tableau.embedded is not None:
            error = _add(torch.zeros_like(y), weights[-1][1], changes)
        y1 = _stage(y, first, weights[len(nodes)], changes)
        return StepResult(y1, error, None, tuple(changes))

    def path(self, y: Tensor, dt: Increment, first: Tensor, result: StepResult) -> Path:
        """y(t + theta dt) = e^(theta z) y + r sum_j sum_k b_jk theta^k phi_k(theta z) u_j.

        The leak is exact, and the targets are the polynomial in time through those of the stages,
        so that a leak that is fast within the step is followed too.
        """
        ratio = step_ratio(self.field, dt, y).expand_as(y)
        formula = partial(_state_within, self.method.tableau.b)
        return Path(y, dt, formula, (first, ratio, *result.slopes))


def _state_within(
    b: Row,
    theta: float | Tensor,
    dt: Increment,
    y: Tensor,
    first: Tensor,
    ratio: Tensor,
    *changes: Tensor,
) -> Tensor:
    passed = ratio * theta
    phis = phi_functions(-passed, _highest([b]))
    phis = [phi * theta**k if k else phi for k, phi in enumerate(phis)]
    own = (-torch.expm1(-passed)).to(y.dtype), _weights(b, phis, passed, y)
    return _stage(y, first, own, changes)


Row = Sequence[Sequence[float]]
Weights = tuple[Tensor, list[Tensor | None]]
"""1 - e^(c z), and the weights of the targets after the first; None where one is 0."""


def _stage(y: Tensor, first: Tensor, weights: Weights, changes: Sequence[Tensor]) -> Tensor:
    """Y = y + (1 - e^(c z)) (u_1 - y) + sum_{j > 1} w_j (u_j - u_1).

    The weights of a stage sum to 1 - e^(c z): this is exact for a constant target, whatever
    rounding does to the w_j.
    """
    return _add(torch.lerp(y, first, weights[0].expand_as(y)), weights[1], changes)


def _add(y: Tensor, weights: Sequence[Tensor | None], changes: Sequence[Tensor]) -> Tensor:
    for weight, change in zip(weights, changes, strict=True):
        y = y if weight is None else torch.addcmul(y, weight, change)
    return y


def _weights(row: Row, phis: Sequence[Tensor], ratio: Tensor, y: Tensor) -> list[Tensor | None]:
    """r sum_k w_k phi_k of the targets after the first, in the dtype of y."""
    used = len(phis)
    return [(ratio * combine(w[:used], phis)).to(y.dtype) if any(w) else None for w in row[1:]]


def _highest(rows: Sequence[Row]) -> int:
    """The last phi function that the weights of the targets after the first are made of."""
    return max([1, *(k for row in rows for w in row[1:] for k, x in enumerate(w, 1) if x)])


def phi_functions(z: Tensor, highest: int = 3) -> list[Tensor]:
    """phi_1 to phi_highest for z <= 0: phi_0 = e^z, phi_{k+1} = (phi_k - 1/k!) / z.

    That cancels near 0. There the last one comes from the series sum_n z^n / (n + k)!, and the
    others from it by the same recurrence read downwards, phi_k = z phi_{k+1} + 1/k!.

    Reference: Hochbruck & Ostermann, Exponential integrators, Acta Numerica 2010, section 2.1.
    """
    near = z > -1
    inside = torch.where(near, z, 0.0)
    divisor = torch.where(near, -1.0, z)  # a branch not taken must not spoil the gradient
    far = [torch.expm1(divisor) / divisor]
    for k in range(1, highest):
        far.append((far[-1] - 1 / math.factorial(k)) / divisor)
    terms = 17 if z.dtype == torch.float64 else 9
    series = torch.full_like(z, 1 / math.factorial(terms + highest))
    for n in reversed(range(terms)):
        series = torch.addcmul(z.new_full((), 1 / math.factorial(n + highest)), series, inside)
    found = [series]
    for k in reversed(range(1, highest)):
        found.insert(0, torch.addcmul(z.new_full((), 1 / math.factorial(k)), found[0], inside))
    return [torch.where(near, *both) for both in zip(found, far, strict=True)]
