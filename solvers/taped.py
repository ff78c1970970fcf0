"""Relaxation steps with a hand-written gradient, for fields that know their own derivative.

Autograd would record and revisit every intermediate of every step. Here the steps run without
it; the states and targets are kept, and one backward sweep pulls the gradient through them. It
is the exact gradient of the steps taken (discretise, then optimise), in a third of the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from solvers.fields import PullbackField, SemilinearField, VectorField, check_like
from solvers.integrate import under_transform
from solvers.methods import Increment, Method, Relaxation, RungeKutta, axpy
from solvers.solution import Solution
from solvers.tableau import EULER

EXPLICIT_EULER = Relaxation("euler", lambda z: z, torch.ones_like)

# A solve of a field from a state, by a method of the caller's choosing.
Solve = Callable[[Method, VectorField, Tensor], Solution]


def solve_taped(solve: Solve, method: Method, field: VectorField, y0: Tensor) -> Solution | None:
    """The solution with a hand-written gradient, or None where this case needs autograd."""
    relaxation = _relaxation_of(method)
    if relaxation is None or not isinstance(field, PullbackField) or under_transform():
        return None
    rate = field.rate
    if not isinstance(rate, Tensor) or rate.shape != y0.shape or rate.dtype != y0.dtype:
        return None
    tensors = (y0, rate, *field.inputs)
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return None
    tape = _Tape(relaxation)
    solutions: list[Solution] = []

    def run(state: Tensor) -> Tensor:
        solutions.append(solve(tape, field, state))
        return solutions[0].y

    def replay(state: Tensor, rate: Tensor, *inputs: Tensor) -> Tensor:
        return solve(method, field.with_inputs(rate, *inputs), state).y

    y = _Trajectory.apply(run, replay, tape, field, *tensors)
    first = solutions[0]
    return Solution(y, first.ys, first.stats, first.status)


def _relaxation_of(method: Method) -> Relaxation | None:
    if isinstance(method, Relaxation):
        return method
    return EXPLICIT_EULER if method == RungeKutta(EULER) else None


class _Tape:
    """A relaxation method that remembers the steps of one solve."""

    stages = 1

    def __init__(self, method: Relaxation) -> None:
        self.method = method
        self.order = method.order
        self.explicit = method is EXPLICIT_EULER
        self.states: list[Tensor] = []
        self.targets: list[Tensor] = []
        self.gaps: list[Tensor] = []  # target - state
        self.sizes: list[Increment] = []
        self._slope: Tensor | None = None

    def check(self, field: VectorField) -> None:
        self.method.check(field)

    def first(self, field: VectorField, t: Tensor, y: Tensor) -> Tensor:
        target = check_like(cast(SemilinearField, field).target(t, y), y, "field.target(t, y)")
        self._slope = None
        self.states.append(y)
        self.targets.append(target)
        self.gaps.append(target - y)
        return target

    def derivative(self, field: VectorField, y: Tensor, first: Tensor) -> Tensor:
        if self._slope is None:
            self._slope = self.gaps[-1] * cast(SemilinearField, field).rate
        return self._slope

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> Tensor:
        self.sizes.append(dt)
        if self.explicit:  # the slope is at hand where the step-size rule asked for it
            return axpy(y, 1.0, dt, self.derivative(field, y, first))
        return self.method.step(field, t, y, dt, first)


class _Trajectory(torch.autograd.Function):
    """The final state as a function of y0, rate and the field's inputs."""

    @staticmethod
    def forward(
        ctx: Any,
        run: Callable[[Tensor], Tensor],
        replay: Callable[..., Tensor],
        tape: _Tape,
        field: PullbackField,
        *tensors: Tensor,
    ) -> Tensor:
        y = run(tensors[0])
        ctx.replay, ctx.field, ctx.inputs = replay, field, len(tensors)
        ctx.method, ctx.explicit, ctx.sizes = tape.method, tape.explicit, tape.sizes
        ctx.save_for_backward(*tensors, *tape.states, *tape.targets, *tape.gaps)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors, saved = ctx.saved_tensors[: ctx.inputs], ctx.saved_tensors[ctx.inputs :]
        if torch.is_grad_enabled():  # create_graph: a derivative of this one will be asked for
            wanted = [tensor for tensor in tensors if tensor.requires_grad]
            found = iter(torch.autograd.grad(ctx.replay(*tensors), wanted, grad, create_graph=True))
            grads = tuple(next(found) if tensor.requires_grad else None for tensor in tensors)
            return None, None, None, None, *grads
        steps = len(ctx.sizes)
        taped = zip(
            saved[:steps], saved[steps : 2 * steps], saved[2 * steps :], ctx.sizes, strict=True
        )
        return None, None, None, None, *_sweep(ctx, tensors, list(taped), grad)


def _sweep(
    ctx: Any,
    tensors: tuple[Tensor, ...],
    steps: list[tuple[Tensor, Tensor, Tensor, Increment]],
    grad: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients of y0, rate and inputs, step by step from the last.

    With y1 = y + w(rate dt) (u - y):  dL/du = g w,  dL/dy = g - g w + J^T (g w),
    dL/drate = sum g w'(rate dt) dt (u - y).
    """
    rate = tensors[1]
    pullback = ctx.field.pullback(*tensors[2:])
    rate_grad = torch.zeros_like(rate)
    for y, target, gap, dt in reversed(steps):
        scaled = grad * dt
        if ctx.explicit:
            pulled = scaled * rate
        else:
            weight = ctx.method.weight(rate * dt).to(rate.dtype)
            pulled = grad * weight
            scaled = scaled.mul_(ctx.method.weight_slope(weight))
        rate_grad.addcmul_(scaled, gap)
        grad = pullback.pull(y, target, pulled, grad - pulled)
    return grad, rate_grad, *pullback.gradients()
