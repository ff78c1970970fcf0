"""Methods that step a semilinear field straight towards its target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from solvers.fields.base import QuasilinearField, RelaxationField, VectorField, evaluate
from solvers.methods.arithmetic import Increment
from solvers.methods.base import BoundMethod, StepResult
from solvers.methods.interpolation import Path
from solvers.methods.semilinear import SemilinearMethod, evaluate_target, step_ratio


@dataclass(frozen=True)
class Relaxation(SemilinearMethod):
    """One step of a semilinear field towards its target: y1 = y + w(dt/tau) (target - y).

    On a quasilinear field 1/tau is rate times gain, both at the start of the step, which only a
    bound method knows. The weight w tells the methods apart: z is explicit Euler, 1 - exp(-z)
    exponential Euler, z / (1 + z) semi-implicit Euler.

    Args:
        name: for messages.
        weight: w as a function of z.
        weight_slope: dw/dz as a function of w.
        overwrites: whether a step may be written over the target, where no gradient is recorded.
    """

    name: str
    weight: Callable[[Tensor], Tensor]
    weight_slope: Callable[[Tensor], Tensor]
    order: int = 1
    stages: int = 1
    overwrites: bool = False

    @property
    def explicit(self) -> bool:
        """Whether it is explicit Euler, whose step is dt times the slope."""
        return self.weight is EXPLICIT_EULER.weight

    def check(self, field: VectorField) -> None:
        if not isinstance(field, QuasilinearField):
            super().check(field)

    def weight_of(self, field: VectorField, dt: Increment, y: Tensor) -> Tensor:
        """w(dt / tau), of the shape and dtype of y."""
        # CUDA's autocast takes expm1 in float32.
        return self.weight(step_ratio(field, dt, y)).to(y.dtype).expand_as(y)

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> StepResult:
        return StepResult(torch.lerp(y, first, self.weight_of(field, dt, y)))

    def path(
        self, field: VectorField, y: Tensor, dt: Increment, first: Tensor, result: StepResult
    ) -> Path:
        return RelaxationPath(y, dt, step_ratio(field, dt, y).expand_as(y), first, self.weight)

    def bind(self, field: VectorField, *, controlled: bool = False) -> BoundMethod:
        self.check(field)
        kind = BoundLeak if isinstance(field, QuasilinearField) else BoundRelaxation
        return kind(self, field)


@dataclass(frozen=True)
class RelaxationPath:
    """The states within a step: where a shorter step of the same method would have ended.

    Attributes:
        y: state at t.
        dt: size of the step.
        ratio: dt / tau, of the shape of y.
        first: the target.
        weight: w as a function of dt / tau.
    """

    y: Tensor
    dt: Increment
    ratio: Tensor
    first: Tensor
    weight: Callable[[Tensor], Tensor]

    def select(self, rows: Tensor) -> RelaxationPath:
        dt = self.dt[rows] if isinstance(self.dt, Tensor) else self.dt
        return RelaxationPath(self.y[rows], dt, self.ratio[rows], self.first[rows], self.weight)

    def at(self, theta: float | Tensor) -> Tensor:
        return torch.lerp(self.y, self.first, self.weight(self.ratio * theta).to(self.y.dtype))


class BoundRelaxation(BoundMethod):
    """Keeps the weight while the step does not change, and the slope where a rule asked for it."""

    method: Relaxation

    def __init__(self, method: Relaxation, field: VectorField) -> None:
        super().__init__(method, field)
        self._dt: float | None = None
        self._weight: Tensor | None = None
        self._slope: Tensor | None = None

    def first(self, t: Tensor, y: Tensor) -> Tensor:
        self._slope = None
        return evaluate_target(self.field, t, y)

    def derivative(self, y: Tensor, first: Tensor) -> Tensor:
        if self.method.overwrites and self.method.explicit:  # the target is not needed again
            self._slope = first.sub_(y).mul_(cast(RelaxationField, self.field).rate)
        else:
            self._slope = self.method.derivative(self.field, y, first)
        return self._slope

    def weight(self, dt: Increment, y: Tensor) -> Tensor:
        """w(dt / tau), of the shape and dtype of y."""
        if isinstance(dt, Tensor):
            return self.method.weight_of(self.field, dt, y)
        if self._weight is None or dt != self._dt:
            self._dt, self._weight = dt, self.method.weight_of(self.field, dt, y)
        return self._weight

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> StepResult:
        if torch.is_grad_enabled():  # the slope that sized the step carries no gradient
            return StepResult(torch.lerp(y, first, self.weight(dt, y)))
        over = self.method.overwrites
        if self._slope is not None and self.method.explicit and isinstance(dt, Tensor):
            out = self._slope if over else None
            return StepResult(torch.addcmul(y, self._slope, dt, out=out))
        out = first if over else None
        return StepResult(torch.lerp(y, first, self.weight(dt, y), out=out))


class BoundLeak(BoundMethod):
    """On a quasilinear field: keeps the gain that came with the target, for the step to follow.

    Attributes:
        gain: that of the last evaluation.
    """

    method: Relaxation
    gain: Tensor

    def __init__(self, method: Relaxation, field: VectorField) -> None:
        super().__init__(method, field)
        self._dt: float | None = None
        self._scale: Tensor | None = None

    def first(self, t: Tensor, y: Tensor) -> Tensor:
        leak = cast(QuasilinearField, self.field).leak
        target, self.gain = evaluate(leak, t, y, "field.leak(t, y)")
        return cast(Tensor, target)

    def derivative(self, y: Tensor, first: Tensor) -> Tensor:
        return (first - y) * self.gain * step_ratio(self.field, 1.0, y)

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> StepResult:
        ratio = self.gain * self.scale(dt, y)
        return StepResult(torch.lerp(y, first, self.method.weight(ratio)))

    def path(self, y: Tensor, dt: Increment, first: Tensor, result: StepResult) -> Path:
        return RelaxationPath(y, dt, self.gain * self.scale(dt, y), first, self.method.weight)

    def scale(self, dt: Increment, y: Tensor) -> Tensor:
        """dt rate in the dtype of the state; kept while the step does not change."""
        if isinstance(dt, Tensor):
            return step_ratio(self.field, dt, y)
        if self._scale is None or dt != self._dt:
            self._dt, self._scale = dt, step_ratio(self.field, dt, y)
        return self._scale


def _itself(z: Tensor) -> Tensor:
    return z


def _gone(z: Tensor) -> Tensor:
    """1 - exp(-z)."""
    return -torch.expm1(-z)


def _left(w: Tensor) -> Tensor:
    return 1 - w


def _implicit(z: Tensor) -> Tensor:
    return z / (1 + z)


def _left_squared(w: Tensor) -> Tensor:
    return (1 - w).square()


EXPLICIT_EULER = Relaxation("euler", _itself, torch.ones_like)
EXPONENTIAL_EULER = Relaxation("exponential_euler", _gone, _left)
SEMI_IMPLICIT_EULER = Relaxation("semi_implicit_euler", _implicit, _left_squared)
