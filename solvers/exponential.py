"""Steps of methods for semilinear fields, dy/dt = (target(t, y) - y) / tau."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from solvers.fields import PullbackField, SemilinearField, VectorField, check_like
from solvers.methods import Attempt, BoundMethod, Increment, Method, RungeKutta
from solvers.tableau import EULER


class SemilinearMethod(Method):
    """A method that evaluates the target of a semilinear field, and treats the leak itself."""

    name: str

    def check(self, field: VectorField) -> None:
        if not isinstance(field, SemilinearField):
            raise ValueError(
                f"{self.name} needs a SemilinearField, dy/dt = (target(t, y) - y) / tau; "
                f"it was given {type(field).__name__}. Wrap the field as "
                "solvers.SemilinearField(target, tau), or take a general method such as heun."
            )

    def first(self, field: VectorField, t: Tensor, y: Tensor) -> Tensor:
        return evaluate_target(field, t, y)

    def derivative(self, field: VectorField, y: Tensor, first: Tensor) -> Tensor:
        return (first - y) * cast(SemilinearField, field).rate


def evaluate_target(field: VectorField, t: Tensor, y: Tensor) -> Tensor:
    """target(t, y), of the shape and dtype of y."""
    return check_like(cast(SemilinearField, field).target(t, y), y, "field.target(t, y)")


def step_ratio(field: VectorField, dt: Increment, y: Tensor) -> Tensor:
    """dt / tau in the dtype of the state; broadcasts against it."""
    ratio = cast(SemilinearField, field).rate * dt
    return torch.as_tensor(ratio, dtype=y.dtype, device=y.device)


@dataclass(frozen=True)
class Relaxation(SemilinearMethod):
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

    def weight_of(self, field: VectorField, dt: Increment, y: Tensor) -> Tensor:
        """w(dt / tau), of the shape and dtype of y."""
        # CUDA's autocast takes expm1 in float32.
        return self.weight(step_ratio(field, dt, y)).to(y.dtype).expand_as(y)

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> Attempt:
        return Attempt(torch.lerp(y, first, self.weight_of(field, dt, y)))

    def bind(self, field: VectorField) -> BoundMethod:
        self.check(field)
        return BoundRelaxation(self, field)


class BoundRelaxation(BoundMethod):
    """Keeps the weight while the step does not change, and the slope where a rule asked for it."""

    method: Relaxation

    def __init__(self, method: Relaxation, field: VectorField) -> None:
        super().__init__(method, field)
        self._dt: float | None = None
        self._weight: Tensor | None = None
        self._slope: Tensor | None = None
        self.keeps_targets = not isinstance(field, PullbackField)
        """Whether a target must outlive its step; else the step is written over it."""

    def first(self, t: Tensor, y: Tensor) -> Tensor:
        self._slope = None
        return evaluate_target(self.field, t, y)

    def derivative(self, y: Tensor, first: Tensor) -> Tensor:
        self._slope = self.method.derivative(self.field, y, first)
        return self._slope

    def weight(self, dt: Increment, y: Tensor) -> Tensor:
        """w(dt / tau), of the shape and dtype of y."""
        if isinstance(dt, Tensor):
            return self.method.weight_of(self.field, dt, y)
        if self._weight is None or dt != self._dt:
            self._dt, self._weight = dt, self.method.weight_of(self.field, dt, y)
        return self._weight

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> Attempt:
        if torch.is_grad_enabled():  # the slope that sized the step carries no gradient
            return Attempt(torch.lerp(y, first, self.weight(dt, y)))
        if self._slope is not None and self.method is EXPLICIT_EULER and isinstance(dt, Tensor):
            return Attempt(torch.addcmul(y, self._slope, dt, out=self._slope))
        out = None if self.keeps_targets else first
        return Attempt(torch.lerp(y, first, self.weight(dt, y), out=out))


EXPLICIT_EULER = Relaxation("euler", lambda z: z, torch.ones_like)
EXPONENTIAL_EULER = Relaxation("exponential_euler", lambda z: -torch.expm1(-z), lambda w: 1 - w)
SEMI_IMPLICIT_EULER = Relaxation(
    "semi_implicit_euler", lambda z: z / (1 + z), lambda w: (1 - w).square()
)


def relaxation_of(method: Method) -> Relaxation | None:
    """The method as a relaxation, if on a semilinear field it is one."""
    if isinstance(method, Relaxation):
        return method
    return EXPLICIT_EULER if method == RungeKutta(EULER) else None


@dataclass(frozen=True)
class ETD2RK(SemilinearMethod):
    """Exponential time differencing of order 2, with exponential Euler embedded.

    With z = -dt/tau and u the target: a = e^z y + (1 - e^z) u(y) and
    y1 = a + ((1 + z - e^z)/z) (u(a) - u(y)); the error estimate is y1 - a.

    Reference: Cox & Matthews 2002, Exponential time differencing for stiff systems, eqs. 20-22.
    """

    name: str = "etdrk2"
    order: int = 2
    stages: int = 2
    error_order: int = 2

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> Attempt:
        ratio = step_ratio(field, dt, y)  # dt / tau = -z
        decay = -torch.expm1(-ratio)  # 1 - e^z
        euler = torch.lerp(y, first, decay.to(y.dtype).expand_as(y))
        change = evaluate_target(field, t + dt, euler) - first
        correction = change * second_weight(ratio, decay).to(y.dtype)
        return Attempt(euler + correction, correction)


def second_weight(ratio: Tensor, decay: Tensor) -> Tensor:
    """(1 + z - e^z)/z for z = -ratio, out of decay = 1 - e^z: in (0, 1), 0 at ratio = 0."""
    # 1 - decay / ratio cancels near 0; there the series ratio/2 - ratio^2/6 + ... is used.
    small = ratio < 0.01
    series = ratio * (1 / 2 - ratio * (1 / 6 - ratio * (1 / 24 - ratio * (1 / 120 - ratio / 720))))
    return torch.where(small, series, 1 - decay / torch.where(small, 1.0, ratio))
