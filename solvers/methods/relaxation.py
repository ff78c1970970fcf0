"""Methods that step a semilinear field straight towards its target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor

from solvers.fields.base import QuasilinearField, VectorField, evaluate
from solvers.methods.arithmetic import Increment
from solvers.methods.base import BoundMethod, StepResult
from solvers.methods.interpolation import Path
from solvers.methods.semilinear import BoundWeights, SemilinearMethod, step_ratio


@dataclass(frozen=True)
class Relaxation(SemilinearMethod):
    """One step of a semilinear field towards its target: y1 = y + w(dt/tau) (target - y).

    On a quasilinear field 1/tau is rate times gain, both at the start of the step. The weight w
    tells the methods apart: z is explicit Euler, min(z, 1) the same no further than the target,
    1 - exp(-z) exponential Euler, z / (1 + z) semi-implicit Euler. With 0 <= w <= 1 a step stays
    between state and target, however long it is.

    Args:
        name: for messages.
        weight: w as a function of z.
        weight_pull: dL/dz as a function of dL/dw, which it may overwrite, and of z and w.
        overwrites: whether a step may be written over the target, where no gradient is recorded.
    """

    name: str
    weight: Callable[[Tensor], Tensor]
    weight_pull: Callable[[Tensor, Tensor, Tensor], Tensor]
    order: int = 1
    stages: int = 1
    overwrites: bool = False

    def check(self, field: VectorField) -> None:
        if not isinstance(field, QuasilinearField):
            super().check(field)

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> StepResult:
        return self.bind(field).step(t, y, dt, first)

    def bind(
        self, field: VectorField, *, controlled: bool = False, bounded: bool = False
    ) -> BoundMethod:
        self.check(field)
        return BoundRelaxation(self, field)


class BoundRelaxation(BoundWeights):
    """Keeps the gain that came with the target.

    Attributes:
        gain: that of the last evaluation of a quasilinear field; None of a semilinear one.
    """

    method: Relaxation
    gain: Tensor | None = None

    def __init__(self, method: Relaxation, field: VectorField) -> None:
        super().__init__(method, field)
        self._leak = field.leak if isinstance(field, QuasilinearField) else None

    def first(self, t: Tensor, y: Tensor) -> Tensor:
        if self._leak is None:
            return self.method.first(self.field, t, y)
        target, self.gain = evaluate(self._leak, t, y, "field.leak(t, y)")
        return cast(Tensor, target)

    def derivative(self, y: Tensor, first: Tensor) -> Tensor:
        if self.gain is not None:
            return (first - y) * self.gain * step_ratio(self.field, 1.0, y)
        return super().derivative(y, first)

    def weigh(self, dt: Increment, y: Tensor) -> tuple[Tensor, Tensor]:
        """z = dt / tau, and w(z) of the shape and dtype of y.

        Of a quasilinear field, whose gain belongs to a step, twice dt rate.
        """
        ratio = step_ratio(self.field, dt, y)
        if self._leak is not None:
            return ratio, ratio
        # CUDA's autocast takes expm1 in float32.
        return ratio, self.method.weight(ratio).to(y.dtype).expand_as(y)

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> StepResult:
        if self._leak is not None:
            if self.gain is None:  # a step made again, of some of the samples
                self.first(t, y)
            weight = self.method.weight(self.gain * self.weights(dt, y)[0])
            return StepResult(torch.lerp(y, first, weight))
        over = self.method.overwrites and not torch.is_grad_enabled()
        return StepResult(torch.lerp(y, first, self.weights(dt, y)[1], out=first if over else None))

    def path(self, y: Tensor, dt: Increment, first: Tensor, result: StepResult) -> Path:
        """The states within a step: where a shorter step of the same method would have ended."""
        ratio = step_ratio(self.field, dt, y)
        ratio = ratio.expand_as(y) if self.gain is None else self.gain * ratio
        return Path(y, dt, partial(_shorter, self.method.weight), (first, ratio))


def _shorter(
    weight: Callable[[Tensor], Tensor],
    theta: float | Tensor,
    dt: Increment,
    y: Tensor,
    first: Tensor,
    ratio: Tensor,
) -> Tensor:
    return torch.lerp(y, first, weight(ratio * theta).to(y.dtype))


def _itself(z: Tensor) -> Tensor:
    return z


def _itself_pull(grad: Tensor, z: Tensor, w: Tensor) -> Tensor:
    return grad


def _at_most_one(z: Tensor) -> Tensor:
    # At 1, where the step is still Euler's own, clamp's gradient depends on the version of torch.
    return torch.where(z > 1.0, 1.0, z) if torch.is_grad_enabled() else z.clamp(max=1.0)


def _at_most_one_pull(grad: Tensor, z: Tensor, w: Tensor) -> Tensor:
    # The operation leaves its bounds out; 1 is to be in.
    above = 1.0 + torch.finfo(z.dtype).eps
    return torch.ops.aten.hardtanh_backward.grad_input(grad, z, -1.0, above, grad_input=grad)


def _gone(z: Tensor) -> Tensor:
    """1 - exp(-z)."""
    return -torch.expm1(-z)


def _gone_pull(grad: Tensor, z: Tensor, w: Tensor) -> Tensor:
    return grad.mul_(1 - w)


def _implicit(z: Tensor) -> Tensor:
    return z / (1 + z)


def _implicit_pull(grad: Tensor, z: Tensor, w: Tensor) -> Tensor:
    return grad.mul_((1 - w).square_())


EXPLICIT_EULER = Relaxation("euler", _itself, _itself_pull)
BOUNDED_EULER = Relaxation("bounded_euler", _at_most_one, _at_most_one_pull)
EXPONENTIAL_EULER = Relaxation("exponential_euler", _gone, _gone_pull)
SEMI_IMPLICIT_EULER = Relaxation("semi_implicit_euler", _implicit, _implicit_pull)
