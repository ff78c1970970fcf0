"""One backward sweep through the steps of a relaxation method, step by step from the last."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from solvers.fields.base import QuasilinearField, RelaxationField
from solvers.fields.derivatives import Pullback, PullbackFunction
from solvers.loop.solve_state import SolveState
from solvers.loop.step import Step
from solvers.methods.arithmetic import Increment
from solvers.methods.relaxation import BoundRelaxation, Relaxation


@dataclass
class Trajectory:
    """What is remembered of the steps of one solve.

    Attributes:
        states: y at the start of each step.
        targets: there.
        gains: there, of a quasilinear field.
        sizes: dt.
    """

    states: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    gains: list[Tensor] = field(default_factory=list)
    sizes: list[Increment] = field(default_factory=list)

    def note(self, at: SolveState, step: Step) -> None:
        """Remember one more step."""
        self.states.append(at.y)
        self.targets.append(step.first)
        self.sizes.append(step.dt)
        gain = cast(BoundRelaxation, at.bound).gain
        if gain is not None:
            self.gains.append(gain)

    def tensors(self) -> list[Tensor]:
        """What autograd is to keep."""
        own = [size for size in self.sizes if isinstance(size, Tensor)]
        return [*self.states, *self.targets, *self.gains, *own]

    def shared_sizes(self) -> list[float | None]:
        """dt of the steps that all samples share, None for the others."""
        return [None if isinstance(size, Tensor) else size for size in self.sizes]

    @staticmethod
    def taken_from(
        saved: list[Tensor], sizes: list[float | None], field: RelaxationField
    ) -> Trajectory:
        """The last steps of those saved, which are taken off the list."""

        def take(count: int) -> list[Tensor]:
            found = saved[len(saved) - count :]
            del saved[len(saved) - count :]
            return found

        own = iter(take(sizes.count(None)))
        gains = take(len(sizes)) if isinstance(field, QuasilinearField) else []
        targets, states = take(len(sizes)), take(len(sizes))
        return Trajectory(
            states, targets, gains, [next(own) if size is None else size for size in sizes]
        )


Sweep = tuple[Tensor, tuple[Tensor, ...]]
"""The gradients of y0, and of the rate and the tensors of the field's function."""


def sweep(method: Relaxation, field: RelaxationField, steps: Trajectory, grad: Tensor) -> Sweep:
    """Back through the steps of a field that knows its derivative.

    With z = dt rate, times the gain of a quasilinear field, and y1 = y + w(z) (u - y):
    dL/du = g w,  dL/dz = g (u - y) w'(z),  dL/dgain = dL/dz dt rate,  dL/drate = sum dL/dz dt gain,
    dL/dy = g - g w + J^T (dL/du, dL/dgain).

    Args:
        method: of the steps.
        field: what they solved.
        steps: as they were taken.
        grad: that of the last state; overwritten, since few arrays stay in the cache.
    """
    bound = BoundRelaxation(method, field)
    pullback: Pullback = cast(PullbackFunction, field.function).pullback()
    rate_grad: Tensor | None = None
    gathered: Tensor | None = None  # over steps of one size
    sizes = steps.sizes
    for index in range(len(sizes) - 1, -1, -1):
        y, target, dt = steps.states[index], steps.targets[index], sizes[index]
        ratio, weight = scale, _ = bound.weights(dt, y)
        gap = target - y
        values: tuple[Tensor, ...] = (target,)
        gain_grad = None
        if steps.gains:
            gain = steps.gains[index]
            ratio = scale * gain
            weight = method.weight(ratio)
            values = target, gain
            of_ratio = method.weight_pull(grad * gap, ratio, weight)
            gathered = of_ratio * gain if gathered is None else gathered.addcmul_(of_ratio, gain)
            gain_grad = of_ratio.mul_(scale)
        else:
            gathered = grad * gap if gathered is None else gathered.addcmul_(grad, gap)
        if isinstance(dt, Tensor) or index == 0 or sizes[index - 1] != dt:
            if gain_grad is None:
                gathered = method.weight_pull(gathered, ratio, weight)
            if rate_grad is None:
                rate_grad = gathered.mul_(dt)
            elif isinstance(dt, Tensor):
                rate_grad.addcmul_(gathered, dt)
            else:
                rate_grad.add_(gathered, alpha=dt)
            gathered = None
        target_grad = torch.mul(grad, weight, out=gap)
        grads = (target_grad,) if gain_grad is None else (target_grad, gain_grad)
        grad = pullback.pull(y, values, grads, grad.sub_(target_grad))
    return grad, (cast(Tensor, rate_grad), *pullback.gradients())
