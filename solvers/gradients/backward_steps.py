"""One backward sweep through the steps of a relaxation method, step by step from the last."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from solvers.fields.base import QuasilinearField, RelaxationField
from solvers.fields.derivatives import LeakPullback, PullbackFunction, TargetPullback
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


def sweep_of(method: Relaxation, field: RelaxationField) -> TargetSweep | LeakSweep:
    """The sweep for a field that knows its derivative."""
    return (LeakSweep if isinstance(field, QuasilinearField) else TargetSweep)(method, field)


def _pullback(field: RelaxationField) -> Any:
    return cast(PullbackFunction, field.function).pullback()


class TargetSweep:
    """Through a semilinear field.

    With y1 = y + w(rate dt) (u - y):  dL/du = g w,  dL/dy = g - g w + J^T (g w),
    dL/drate = sum g w'(rate dt) dt (u - y).
    """

    def __init__(self, method: Relaxation, field: RelaxationField) -> None:
        self.method = method
        self.bound = BoundRelaxation(method, field)
        self.pullback: TargetPullback = _pullback(field)

    def run(self, steps: Trajectory, grad: Tensor) -> Sweep:
        """``grad`` is that of the last state, and is overwritten: few arrays stay in the cache."""
        rate_grad: Tensor | None = None
        gathered: Tensor | None = None  # sum of g (u - y) over steps of one size
        sizes = steps.sizes
        for index in range(len(sizes) - 1, -1, -1):
            y, target, dt = steps.states[index], steps.targets[index], sizes[index]
            weight = self.bound.weights(dt, y)
            gap = target - y
            gathered = grad * gap if gathered is None else gathered.addcmul_(grad, gap)
            if isinstance(dt, Tensor) or index == 0 or sizes[index - 1] != dt:
                gathered = self._times_slope(gathered, weight, dt)
                rate_grad = gathered if rate_grad is None else rate_grad.add_(gathered)
                gathered = None
            pulled = torch.mul(grad, weight, out=gap)
            grad = self.pullback.pull(y, target, pulled, grad.sub_(pulled))
        return grad, (cast(Tensor, rate_grad), *self.pullback.gradients())

    def _times_slope(self, gathered: Tensor, weight: Tensor, dt: Increment) -> Tensor:
        """w'(rate dt) dt times what was gathered."""
        if self.method.explicit:
            return gathered.mul_(dt)
        return gathered.mul_(self.method.weight_slope(weight)).mul_(dt)


class LeakSweep:
    """Through a quasilinear field.

    With y1 = y + w(z) (u - y), z = dt rate gain, and s = g (u - y) w'(z):  dL/du = g w,
    dL/dgain = s dt rate,  dL/dy = g - g w + J^T (dL/du, dL/dgain),  dL/drate = sum s dt gain.
    """

    def __init__(self, method: Relaxation, field: RelaxationField) -> None:
        self.method = method
        self.bound = BoundRelaxation(method, field)
        self.pullback: LeakPullback = _pullback(field)

    def run(self, steps: Trajectory, grad: Tensor) -> Sweep:
        """``grad`` is that of the last state, and is overwritten."""
        rate_grad: Tensor | None = None
        gathered: Tensor | None = None  # sum of s gain over steps of one size
        sizes = steps.sizes
        for index in range(len(sizes) - 1, -1, -1):
            y, target, dt = steps.states[index], steps.targets[index], sizes[index]
            gain, scale = steps.gains[index], self.bound.weights(dt, y)
            weight = self.method.weight(scale * gain)
            slope = self.method.weight_slope(weight).mul_((target - y).mul_(grad))
            gathered = slope * gain if gathered is None else gathered.addcmul_(slope, gain)
            if isinstance(dt, Tensor) or index == 0 or sizes[index - 1] != dt:
                gathered = gathered.mul_(dt)
                rate_grad = gathered if rate_grad is None else rate_grad.add_(gathered)
                gathered = None
            pulled = weight.mul_(grad)
            grad = grad.sub_(pulled)
            grad = self.pullback.pull(y, target, gain, pulled, slope.mul_(scale), grad)
        return grad, (cast(Tensor, rate_grad), *self.pullback.gradients())
