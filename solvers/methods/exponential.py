"""Exponential Runge-Kutta methods: the leak of a semilinear field is solved exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.fields.base import VectorField
from solvers.methods.arithmetic import Increment
from solvers.methods.base import BoundMethod, Method, StepResult
from solvers.methods.exponential_tableaus import ExponentialTableau, Phi
from solvers.methods.interpolation import Path
from solvers.methods.semilinear import SemilinearMethod, evaluate_target, step_ratio


@dataclass(frozen=True)
class ExponentialRungeKutta(SemilinearMethod):
    """An explicit exponential Runge-Kutta step out of its tableau.

    Args:
        name: for messages.
        tableau: the coefficients.
    """

    name: str
    tableau: ExponentialTableau

    @property
    def order(self) -> int:
        return self.tableau.order

    @property
    def stages(self) -> int:
        return len(self.tableau.b)

    @property
    def error_order(self) -> int | None:
        order = self.tableau.embedded_order
        return None if order is None else order + 1

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> StepResult:
        return self.bind(field).step(t, y, dt, first)

    @property
    def needs_end(self) -> bool:
        return False

    def path(
        self, field: VectorField, y: Tensor, dt: Increment, first: Tensor, result: StepResult
    ) -> Path:
        ratio = step_ratio(field, dt, y).expand_as(y)
        return ExponentialPath(y, dt, ratio, first, result.slopes, self.tableau.b)

    def bind(self, field: VectorField, *, controlled: bool = False) -> BoundMethod:
        self.check(field)
        return _BoundExponential(self, field)


@dataclass(frozen=True)
class ExponentialPath:
    """The states within an exponential Runge-Kutta step.

    y(t + theta dt) = e^(theta z) y + r sum_j sum_k b_jk theta^k phi_k(theta z) u_j: the leak is
    exact, and the targets are the polynomial in time through those of the stages, so that a leak
    that is fast within the step is followed too.

    Attributes:
        y: state at t.
        dt: size of the step.
        ratio: dt / tau, of the shape of y.
        first: the first target.
        changes: the other targets less the first.
        weights: b of the tableau.
    """

    y: Tensor
    dt: Increment
    ratio: Tensor
    first: Tensor
    changes: tuple[Tensor, ...]
    weights: tuple[Phi, ...]

    def select(self, rows: Tensor) -> ExponentialPath:
        return ExponentialPath(
            self.y[rows],
            self.dt[rows] if isinstance(self.dt, Tensor) else self.dt,
            self.ratio[rows],
            self.first[rows],
            tuple(change[rows] for change in self.changes),
            self.weights,
        )

    def at(self, theta: float | Tensor) -> Tensor:
        passed = self.ratio * theta
        phis = phi_functions(-passed, max(_highest(self.weights), 1))
        powers = [phi * theta**k if k else phi for k, phi in enumerate(phis)]
        weights = [
            _combined(row, powers, passed).to(self.y.dtype) if any(row) else None
            for row in self.weights[1:]
        ]
        decay = (-torch.expm1(-passed)).to(self.y.dtype)
        return _stage(self.y, self.first, decay, weights, self.changes)


class _Weights:
    """The weights of one size of step, as tensors that broadcast against the state.

    Since the weights of a stage sum to 1 - e^(c z) over r, a stage is
    Y = y + (1 - e^(c z)) (u_1 - y) + sum_{j > 1} w_j (u_j - u_1), which is exact for a constant
    target, whatever rounding does to the w_j.
    """

    def __init__(self, tableau: ExponentialTableau, ratio: Tensor, dtype: torch.dtype) -> None:
        phis: dict[float, list[Tensor]] = {}
        decays: dict[float, Tensor] = {}
        rows = [*zip(tableau.a, tableau.c[1:], strict=True), (tableau.b, 1.0)]
        highest = {c: max(_highest(row) for row, node in rows if node == c) for _, c in rows}

        def decay(c: float) -> Tensor:
            if c not in decays:  # CUDA's autocast takes it in float32
                decays[c] = (-torch.expm1(-c * ratio)).to(dtype)
            return decays[c]

        def weights(rows: Sequence[Sequence[float]], c: float) -> list[Tensor | None]:
            if c not in phis:
                phis[c] = phi_functions(-c * ratio, highest[c]) if highest[c] else []
            return [
                _combined(row, phis[c], ratio).to(dtype) if any(row) else None for row in rows[1:]
            ]

        self.decays = [decay(c) for c in tableau.c[1:]]
        self.inner = [weights(row, c) for row, c in zip(tableau.a, tableau.c[1:], strict=True)]
        self.decay = decay(1.0)
        self.outer = weights(tableau.b, 1.0)
        self.error = None
        if tableau.embedded is not None:
            difference = [
                [high - low for high, low in zip(b, e, strict=True)]
                for b, e in zip(tableau.b, tableau.embedded, strict=True)
            ]
            self.error = weights(difference, 1.0)


class _BoundExponential(BoundMethod):
    """Keeps the weights while the step does not change."""

    method: ExponentialRungeKutta

    def __init__(self, method: Method, field: VectorField) -> None:
        super().__init__(method, field)
        self._dt: float | None = None
        self._weights: _Weights | None = None

    def _weights_of(self, dt: Increment, y: Tensor) -> _Weights:
        if self._weights is None or isinstance(dt, Tensor) or dt != self._dt:
            self._dt = None if isinstance(dt, Tensor) else dt
            ratio = step_ratio(self.field, dt, y)
            self._weights = _Weights(self.method.tableau, ratio, y.dtype)
        return self._weights

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> StepResult:
        weights = self._weights_of(dt, y)
        changes: list[Tensor] = []  # targets less the first
        for c, decay, row in zip(
            self.method.tableau.c[1:], weights.decays, weights.inner, strict=True
        ):
            inner = _stage(y, first, decay, row, changes)
            changes.append(evaluate_target(self.field, t + c * dt, inner) - first)
        error = None
        if weights.error is not None:
            error = _sum_of(torch.zeros_like(y), weights.error, changes)
        y1 = _stage(y, first, weights.decay, weights.outer, changes)
        return StepResult(y1, error, None, tuple(changes))


def _stage(
    y: Tensor,
    first: Tensor,
    decay: Tensor,
    weights: Sequence[Tensor | None],
    changes: Sequence[Tensor],
) -> Tensor:
    return _sum_of(torch.lerp(y, first, decay.expand_as(y)), weights, changes)


def _sum_of(total: Tensor, weights: Sequence[Tensor | None], changes: Sequence[Tensor]) -> Tensor:
    for weight, change in zip(weights, changes, strict=True):
        if weight is not None:
            total = torch.addcmul(total, weight, change)
    return total


def _combined(row: Sequence[float], phis: Sequence[Tensor], ratio: Tensor) -> Tensor:
    """r sum_k row_k phi_k."""
    pairs = zip(row, phis, strict=False)  # phi functions that no weight is made of are not there
    terms = [(coefficient, phi) for coefficient, phi in pairs if coefficient]
    total = terms[0][1] * terms[0][0]
    for coefficient, phi in terms[1:]:
        total = torch.add(total, phi, alpha=coefficient)
    return ratio * total


def _highest(rows: Sequence[Sequence[float]]) -> int:
    """The last phi function that the weights of all stages but the first are made of."""
    return max((k + 1 for row in rows[1:] for k, weight in enumerate(row) if weight), default=0)


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
        series = torch.addcmul(z.new_tensor(1 / math.factorial(n + highest)), series, inside)
    found = [series]
    for k in reversed(range(1, highest)):
        found.insert(0, torch.addcmul(z.new_tensor(1 / math.factorial(k)), found[0], inside))
    return [torch.where(near, *both) for both in zip(found, far, strict=True)]
