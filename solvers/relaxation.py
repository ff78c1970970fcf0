"""Methods that step a semilinear field straight towards its target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.fields import PullbackField, VectorField
from solvers.methods import Attempt, BoundMethod, Increment, Method, RungeKutta
from solvers.semilinear import SemilinearMethod, evaluate_target, step_ratio
from solvers.tableau import EULER


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
