"""Relaxation steps with a hand-written gradient, for fields that know their own derivative.

Autograd would record and revisit every intermediate of every step. Here the steps run without
it; the states and targets are kept, and one backward sweep pulls the gradient through them. It
is the exact gradient of the steps taken (discretise, then optimise), in a third of the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from solvers.chunks import row_chunks
from solvers.fields import PullbackField, TargetPullback, VectorField, knows_derivative
from solvers.finite import under_transform
from solvers.increments import Increment
from solvers.integrate import Integration
from solvers.methods import Attempt, BoundMethod, Method
from solvers.relaxation import BoundRelaxation, Relaxation, relaxation_of
from solvers.rows import select
from solvers.solution import Solution


def solve_taped(integration: Integration, y0: Tensor) -> Solution | None:
    """The solution with a hand-written gradient, or None where this case needs autograd."""
    method, field = relaxation_of(integration.method), cast(PullbackField, integration.field)
    if method is None or not knows_derivative(field) or under_transform():
        return None
    rate = field.rate
    if not isinstance(rate, Tensor) or rate.shape != y0.shape or rate.dtype != y0.dtype:
        return None
    tensors = (y0, rate, *field.inputs)
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return None
    solutions: list[Solution] = []
    y = _Trajectory.apply(replace(integration, method=method), solutions, *tensors)
    solution = solutions[0]
    return replace(solution, y=y, status=solution.status[:1].expand(y0.shape[0]))


class _Tape(Method):
    """A relaxation method that remembers the steps of one solve."""

    order, stages = 1, 1

    def __init__(self, method: Relaxation) -> None:
        self.method = method
        self.states: list[Tensor] = []
        self.targets: list[Tensor] = []
        self.sizes: list[Increment] = []

    def bind(self, field: VectorField) -> BoundMethod:
        return _BoundTape(self, self.method.bind(field))

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> Attempt:
        raise NotImplementedError("a tape is used bound")


class _BoundTape(BoundMethod):
    def __init__(self, tape: _Tape, bound: BoundMethod) -> None:
        super().__init__(tape, bound.field)
        self.tape, self.bound = tape, bound

    def first(self, t: Tensor, y: Tensor) -> Tensor:
        target = self.bound.first(t, y)
        self.tape.states.append(y)
        self.tape.targets.append(target)
        return target

    def derivative(self, y: Tensor, first: Tensor) -> Tensor:
        return self.bound.derivative(y, first)

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> Attempt:
        self.tape.sizes.append(dt)
        return self.bound.step(t, y, dt, first)


class _Trajectory(torch.autograd.Function):
    """The final state as a function of y0, rate and the field's inputs."""

    @staticmethod
    def forward(
        ctx: Any, integration: Integration, solutions: list[Solution], *tensors: Tensor
    ) -> Tensor:
        y0 = tensors[0]
        ctx.integration, ctx.chunks, ctx.sizes = integration, row_chunks(integration, y0), []
        saved: list[Tensor] = []
        ends = []
        for rows in ctx.chunks:
            tape = _Tape(cast(Relaxation, integration.method))
            part = _part(cast(PullbackField, integration.field), rows, ctx.chunks)
            solutions.append(replace(integration, method=tape, field=part).run(y0[rows]))
            ends.append(solutions[-1].y)
            saved += [*tape.states, *tape.targets]
            ctx.sizes.append(tape.sizes)
        ctx.inputs = len(tensors)
        ctx.save_for_backward(*tensors, *saved)
        return ends[0] if len(ends) == 1 else torch.cat(ends)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors, saved = ctx.saved_tensors[: ctx.inputs], ctx.saved_tensors[ctx.inputs :]
        y0, rate, *inputs = tensors
        field = ctx.integration.field.with_inputs(rate, *inputs)
        if torch.is_grad_enabled():  # create_graph: a derivative of this one will be asked for
            y = replace(ctx.integration, field=field).run(y0).y
            wanted = [tensor for tensor in tensors if tensor.requires_grad]
            found = iter(torch.autograd.grad(y, wanted, grad, create_graph=True))
            return None, None, *(next(found) if x.requires_grad else None for x in tensors)
        sweeps: list[tuple[Tensor, ...]] = []
        for rows, sizes in reversed(list(zip(ctx.chunks, ctx.sizes, strict=True))):
            count = 2 * len(sizes)  # the last chunk is still in the cache, so it comes first
            taped, saved = saved[-count:], saved[:-count]
            sweep = _Sweep(ctx.integration.method, _part(field, rows, ctx.chunks))
            half = len(sizes)
            sweeps.insert(0, sweep.run(taped[:half], taped[half:], sizes, grad[rows]))
        return None, None, *_joined(field, ctx.chunks, sweeps)


def _part(field: PullbackField, rows: slice, chunks: Sequence[slice]) -> PullbackField:
    """The field of one chunk."""
    if len(chunks) == 1:
        return field
    return cast(PullbackField, select(field, rows, cast(Tensor, field.rate).ndim))


def _joined(
    field: PullbackField, chunks: Sequence[slice], sweeps: Sequence[tuple[Tensor, ...]]
) -> list[Tensor]:
    """The gradients of the chunks as those of the whole: rows side by side, shared ones added."""
    if len(sweeps) == 1:
        return list(sweeps[0])
    kept = _part(field, chunks[0], chunks).inputs
    shared = [False, False, *(a is b for a, b in zip(kept, field.inputs, strict=True))]
    return [
        torch.stack(parts).sum(0) if of_all else torch.cat(parts)
        for of_all, parts in zip(shared, zip(*sweeps, strict=True), strict=True)
    ]


class _Sweep:
    """Gradients of y0, rate and inputs, step by step from the last.

    With y1 = y + w(rate dt) (u - y):  dL/du = g w,  dL/dy = g - g w + J^T (g w),
    dL/drate = sum g w'(rate dt) dt (u - y).
    """

    def __init__(self, method: Relaxation, field: PullbackField) -> None:
        self.method = method
        self.field = field
        self.rate = cast(Tensor, field.rate)
        self.bound = BoundRelaxation(method, field)
        self.pullback: TargetPullback = field.pullback(*field.inputs)

    def run(
        self,
        states: Sequence[Tensor],
        targets: Sequence[Tensor],
        sizes: Sequence[Increment],
        grad: Tensor,
    ) -> tuple[Tensor, ...]:
        rate_grad: Tensor | None = None
        gathered: Tensor | None = None  # sum of g (u - y) over steps of one size
        grad = grad.clone()  # the sweep works in place: few arrays stay in the cache
        for index in range(len(sizes) - 1, -1, -1):
            y, target, dt = states[index], targets[index], sizes[index]
            weight = self.bound.weight(dt, y)
            gap = target - y
            gathered = grad * gap if gathered is None else gathered.addcmul_(grad, gap)
            if isinstance(dt, Tensor) or index == 0 or sizes[index - 1] != dt:
                gathered = self._times_slope(gathered, weight, dt)
                rate_grad = gathered if rate_grad is None else rate_grad.add_(gathered)
                gathered = None
            pulled = torch.mul(grad, weight, out=gap)
            grad = self.pullback.pull(y, target, pulled, grad.sub_(pulled))
        return grad, cast(Tensor, rate_grad), *self.pullback.gradients()

    def _times_slope(self, gathered: Tensor, weight: Tensor, dt: Increment) -> Tensor:
        """w'(rate dt) dt times what was gathered."""
        if self.method.explicit:
            return gathered.mul_(dt)
        return gathered.mul_(self.method.weight_slope(weight)).mul_(dt)
