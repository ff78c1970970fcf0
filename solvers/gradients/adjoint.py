"""The adjoint method: the gradient by a second solve, backwards in time, of constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from solvers.fields.base import (
    LeakPullbackField,
    PullbackField,
    QuasilinearField,
    SemilinearField,
    VectorField,
)
from solvers.fields.batch_parts import ParameterisedField, Rows, is_selectable, select
from solvers.gradients.modes import Backpropagation
from solvers.loop.integration import Integration
from solvers.loop.progress import StepTaken
from solvers.loop.saved_times import Times
from solvers.methods.arithmetic import advance
from solvers.methods.base import Method, RungeKutta
from solvers.native import NativeSolver
from solvers.solution import SUCCESS, Solution
from solvers.transforms import under_transform


@dataclass(frozen=True)
class BacksolveAdjoint(Backpropagation):
    """By solving the adjoint equation backwards (optimise, then discretise).

    With a(t) = dL/dy(t):  da/dt = -a^T df/dy,  dL/dtheta = -int_{t1}^{t0} a^T df/dtheta dt.
    The state is solved backwards with it, from y(t1). Memory does not grow with the steps; the
    gradient is that of the exact solution, so it differs from that of the numbers by the error of
    the solves. The state is started anew from the forward solution at every time of ``t_eval``.

    Gradients reach every tensor that the field depends on at t0, closures included (torchdiffeq's
    adjoint gives those none), and all parameters of a field that is an ``nn.Module``. It is
    cheapest where the field names its tensors: modules, :class:`solvers.ParameterisedField`,
    :class:`solvers.PullbackField`.

    Caution: a tensor that the field neither names nor uses at t0, but only later, gets no gradient.

    Caution: a decay is a growth backwards. Over T/tau = 10 the rounding of float32 grows by
    e^10 = 22,000: for stiff leaks take :class:`solvers.Checkpointing`, which has no such limit.

    Args:
        solver: solves backwards; an explicit Runge-Kutta solver of this package, or None for the
            same as forwards.

    Raises:
        ValueError: where the solver of the way back is no explicit Runge-Kutta method of this
            package; on use, with an event or with times of each sample, and under function
            transforms.

    Reference: Chen et al. 2018, Neural ordinary differential equations, algorithm 1.
    """

    solver: NativeSolver | None = None

    def __post_init__(self) -> None:
        if self.solver is None:
            return
        if not isinstance(self.solver, NativeSolver):
            raise ValueError(
                "the solver of BacksolveAdjoint must be one of this package's own, such as "
                f"solvers.Dopri5(), not {self.solver!r}"
            )
        self._check_explicit(self.solver.method)

    def check(self, method: Method) -> None:
        if self.solver is None:
            self._check_explicit(method)

    @staticmethod
    def _check_explicit(method: Method) -> None:
        if not isinstance(method, RungeKutta):
            raise ValueError(
                "the adjoint equation has no leak to treat by itself, so its solver must be an "
                "explicit Runge-Kutta method: BacksolveAdjoint(solver=solvers.Dopri5()), for one"
            )

    def solve(self, integration: Integration, y0: Tensor) -> Solution:
        if under_transform():
            raise ValueError(
                "BacksolveAdjoint does not work under torch.compile and function transforms: "
                "take Backpropagation() or Checkpointing()"
            )
        if integration.event is not None or _times_of_each(integration.times):
            raise ValueError(
                "BacksolveAdjoint takes no event and no t_eval of each sample: take "
                "Backpropagation() or Checkpointing()"
            )
        tensors = _tensors_of(integration.field, y0, integration.span[0])
        wanted = torch.is_grad_enabled() and (y0.requires_grad or bool(tensors))
        if not wanted:
            return integration.run(y0)
        backwards = self._way_back(integration)
        solutions: list[Solution] = []
        y, ys = _Backsolve.apply(integration, backwards, solutions, y0, *tensors)
        found = solutions[0]
        stats = replace(found.stats, nfe=found.stats.nfe + 1)  # that of _tensors_of
        return replace(found, y=y, ys=None if found.ys is None else ys, stats=stats)

    def _way_back(self, integration: Integration) -> Integration:
        """The integration of the way back, still without its field and span."""
        if self.solver is None:
            method, rule, steps = integration.method, integration.rule, integration.steps
        else:
            method, rule = self.solver.method, self.solver.step_size
            steps = self.solver.steps or 0
        return replace(
            integration, method=method, rule=rule, steps=steps, gradient=Backpropagation(),
            times=None, compiled=False,  # its field differentiates
        )  # fmt: skip


def _times_of_each(times: Times | None) -> bool:
    return times is not None and times.of_each is not None


class _Adjoint:
    """d/ds of (y, a), stacked as ``(B, 2, ...)``, over s = end - t."""

    def __init__(self, field: VectorField, end: float, axes: int) -> None:
        self.field, self.end, self.axes = field, end, axes
        self.selectable = is_selectable(field)

    def __call__(self, s: Tensor, both: Tensor) -> Tensor:
        time = self.end - (s.squeeze(1) if s.ndim else s)
        y, a = both.unbind(1)
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            slope = self.field(time, y)
        if not slope.requires_grad:
            return torch.stack((-slope, torch.zeros_like(a)), 1)
        (pulled,) = torch.autograd.grad(
            slope, y, a, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.stack((-slope.detach(), pulled), 1)

    def select(self, rows: Rows) -> _Adjoint:
        return _Adjoint(select(self.field, rows, self.axes), self.end, self.axes)


class _Quadrature:
    """int a^T df/dtheta dt by the weights of the steps that are taken."""

    def __init__(self, integration: Integration, tensors: Sequence[Tensor], end: float) -> None:
        self.field = integration.field
        self.tableau = cast(RungeKutta, integration.method).tableau
        self.tensors, self.end = tensors, end
        self.totals: list[Tensor | None] = [None] * len(tensors)

    def __call__(self, step: StepTaken) -> None:
        tableau = self.tableau
        field = self.field
        for index, weight in enumerate(tableau.b):
            if not weight:
                continue
            row = tableau.a[index - 1] if index else ()
            both = advance(step.y, step.dt, row, step.slopes[:index])
            y, a = both.unbind(1)
            scale = step.dt * weight
            if isinstance(scale, Tensor):
                scale = scale.squeeze(1)
            if step.accepted is not None:
                scale = scale * step.accepted.squeeze(1)
            s = step.t + tableau.c[index] * step.dt
            time = self.end - (s.squeeze(1) if s.ndim else s)
            with torch.enable_grad():
                part = field if step.rows is None else select(field, step.rows, y.ndim)
                slope = part(time, y)
                found = torch.autograd.grad(
                    slope, self.tensors, a * scale, retain_graph=True, allow_unused=True
                )
            for place, grad in enumerate(found):
                if grad is not None:
                    total = self.totals[place]
                    self.totals[place] = grad if total is None else total + grad


class _Backsolve(torch.autograd.Function):
    """(y, ys) as functions of y0 and the tensors of the field."""

    @staticmethod
    def forward(
        ctx: Any,
        integration: Integration,
        backwards: Integration,
        solutions: list[Solution],
        y0: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        solution = integration.run(y0)
        solutions.append(solution)
        ys = y0.new_empty(0) if solution.ys is None else solution.ys
        ctx.backwards, ctx.times = backwards, integration.times
        # A failed sample has no gradient, and must not stop the solve backwards.
        healthy = (solution.status == int(SUCCESS)).nonzero().view(-1)
        ctx.rows = None if len(healthy) == len(y0) else healthy
        ctx.save_for_backward(solution.y, ys)
        # As they are: a detached copy would not be what the field holds.
        ctx.tensors = tensors
        return solution.y, ys

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_ys: Tensor) -> tuple[Tensor | None, ...]:
        y, ys = ctx.saved_tensors
        backwards, rows, whole = ctx.backwards, ctx.rows, torch.zeros_like(y)
        if rows is not None:
            with torch.enable_grad():
                backwards = replace(backwards, field=select(backwards.field, rows, y.ndim))
            y, grad_y = y[rows], grad_y[rows]
        t0, t1 = backwards.span
        # From t1 back to every asked time, where its gradient comes in and the state is known.
        stops: list[tuple[float, Tensor | None, Tensor | None]] = []
        if ctx.times is not None:
            for index, left in enumerate(ctx.times.remaining):
                part = slice(None) if rows is None else rows
                stops.append((t1 - left, ys[index][part], grad_ys[index][part]))
        stops = [(t0, None, None), *stops]
        totals: list[Tensor | None] = [None] * len(ctx.tensors)
        end, a = t1, grad_y
        for start, state, jump in reversed(stops):
            if end - start > 1e-12 * (t1 - t0):
                y, a, found = _segment(backwards, y, a, (start, end), ctx.tensors)
                totals = [
                    old if new is None else (new if old is None else old + new)
                    for old, new in zip(totals, found, strict=True)
                ]
            if state is not None and jump is not None:
                y, a = state, a + jump
            end = start
        a = a if rows is None else whole.index_copy(0, rows, a)
        return None, None, None, a, *totals


def _segment(
    backwards: Integration, y: Tensor, a: Tensor, span: tuple[float, float], tensors: Any
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """State, adjoint and the gradients of the tensors, from the end of a span to its start."""
    start, end = span
    quadrature = _Quadrature(backwards, tensors, end)
    solution = replace(
        backwards,
        field=_Adjoint(backwards.field, end, y.ndim),
        span=(0.0, end - start),
        observe=quadrature if tensors else None,
    ).run(torch.stack((y, a), 1))
    solution.throw()
    y, a = solution.y.unbind(1)
    return y, a, quadrature.totals


def _tensors_of(field: VectorField, y0: Tensor, t0: float) -> tuple[Tensor, ...]:
    """The tensors that the field depends on and that want a gradient, none made of another.

    Those that the field names; besides them the leaves of its graph at t0, up to which the
    gradient of an unnamed tensor is followed. A named tensor that is made of another of them is
    followed too, or what reaches the field by two routes would count twice.
    """
    if not torch.is_grad_enabled():
        return ()
    state = y0.detach().requires_grad_()
    time = torch.full((), t0, dtype=torch.promote_types(y0.dtype, torch.float32), device=y0.device)
    with torch.enable_grad():
        slope = field(time, state)
    named = [tensor for tensor in _named(field) if tensor.requires_grad]
    while True:
        stops = {tensor.grad_fn for tensor in named if tensor.grad_fn is not None}
        known = {id(tensor): tensor for tensor in named}
        start = slope.grad_fn if isinstance(slope, Tensor) else None
        found, _ = _sources(start, stops)
        leaves = [leaf for leaf in found if leaf is not state and id(leaf) not in known]
        roots = {id(leaf) for leaf in leaves} | set(known)
        made = [tensor for tensor in named if _made_of(tensor, roots, stops)]
        if not made:
            return (*named, *leaves)
        named = [tensor for tensor in named if all(tensor is not other for other in made)]


def _made_of(tensor: Tensor, roots: set[int], stops: set[Any]) -> bool:
    """Whether the tensor's own graph comes from one of the roots, or through one of the stops."""
    if tensor.grad_fn is None:
        return False
    leaves, nodes = _sources(tensor.grad_fn, set())
    through = (stops - {tensor.grad_fn}) & nodes
    return bool(through) or any(id(leaf) in roots for leaf in leaves)


def _sources(start: Any, stops: set[Any]) -> tuple[list[Tensor], set[Any]]:
    """The leaves that a graph comes from, and its nodes; it is not followed beyond ``stops``."""
    seen: set[Any] = set(stops)
    waiting = [start] if start is not None and start not in stops else []
    leaves = []
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaves.append(leaf)
        waiting += [parent for parent, _ in node.next_functions if parent is not None]
    return leaves, seen


def _named(field: Any) -> list[Tensor]:
    """The tensors that a field says it depends on."""
    if isinstance(field, nn.Module):
        return list(field.parameters())
    if isinstance(field, ParameterisedField):
        return list(field.arguments)
    if isinstance(field, PullbackField | LeakPullbackField):
        rate = field.rate
        return [*([rate] if isinstance(rate, Tensor) else []), *field.inputs]
    if isinstance(field, SemilinearField | QuasilinearField) and isinstance(field.rate, Tensor):
        return [field.rate]
    return []
