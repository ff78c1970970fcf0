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
from solvers.methods.semilinear import BoundWeights, SemilinearMethod, step_ratio


@dataclass(frozen=True)
class Relaxation(SemilinearMethod):
    """One step of a semilinear field towards its target: y1 = y + w(dt/tau) (target - y).

    On a quasilinear field 1/tau is rate times gain, both at the start of the step. The weight w
    tells the methods apart: z is explicit Euler, 1 - exp(-z) exponential Euler, z / (1 + z)
    semi-implicit Euler.

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

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> StepResult:
        return self.bind(field).step(t, y, dt, first)

    def bind(self, field: VectorField, *, controlled: bool = False) -> BoundMethod:
        self.check(field)
        return BoundRelaxation(self, field)


class BoundRelaxation(BoundWeights):
    """Keeps the gain that came with the target, and the slope where a rule asked for it.

    Attributes:
        gain: that of the last evaluation of a quasilinear field; None of a semilinear one.
    """

    method: Relaxation
    gain: Tensor | None = None
    _slope: Tensor | None = None

    def __init__(self, method: Relaxation, field: VectorField) -> None:
        super().__init__(method, field)
        self._leak = field.leak if isinstance(field, QuasilinearField) else None

    def first(self, t: Tensor, y: Tensor) -> Tensor:
        self._slope = None
        if self._leak is None:
            return self.method.first(self.field, t, y)
        target, self.gain = evaluate(self._leak, t, y, "field.leak(t, y)")
        return cast(Tensor, target)

    def derivative(self, y: Tensor, first: Tensor) -> Tensor:
        if self.gain is not None:
            return (first - y) * self.gain * step_ratio(self.field, 1.0, y)
        if self.method.overwrites and self.method.explicit:  # the target is not needed again
            self._slope = first.sub_(y).mul_(cast(RelaxationField, self.field).rate)
        else:
            self._slope = super().derivative(y, first)
        return self._slope

    def weigh(self, dt: Increment, y: Tensor) -> Tensor:
        """w(dt / tau), of the shape and dtype of y; of a quasilinear field dt rate alone."""
        ratio = step_ratio(self.field, dt, y)
        if self._leak is not None:
            return ratio
        # CUDA's autocast takes expm1 in float32.
        return self.method.weight(ratio).to(y.dtype).expand_as(y)

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> StepResult:
        if self._leak is not None:
            if self.gain is None:  # a step made again, of some of the samples
                self.first(t, y)
            weight = self.method.weight(self.gain * self.weights(dt, y))
            return StepResult(torch.lerp(y, first, weight))
        slope, over = self._slope, self.method.overwrites
        if torch.is_grad_enabled():  # the slope that sized the step carries no gradient
            slope, over = None, False
        if slope is not None and self.method.explicit and isinstance(dt, Tensor):
            return StepResult(torch.addcmul(y, slope, dt, out=slope if over else None))
        return StepResult(torch.lerp(y, first, self.weights(dt, y), out=first if over else None))

    def path(self, y: Tensor, dt: Increment, first: Tensor, result: StepResult) -> Path:
        """The states within a step: where a shorter step of the same method would have ended."""

        def state(
            theta: float | Tensor, dt: Increment, y: Tensor, first: Tensor, ratio: Tensor
        ) -> Tensor:
            return torch.lerp(y, first, self.method.weight(ratio * theta).to(y.dtype))

        ratio = step_ratio(self.field, dt, y)
        ratio = ratio.expand_as(y) if self.gain is None else self.gain * ratio
        return Path(y, dt, state, (first, ratio))


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
