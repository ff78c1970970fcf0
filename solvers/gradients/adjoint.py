"""The adjoint method: the gradient by a second solve, backwards in time, of constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from solvers.fields.base import VectorField
from solvers.fields.batch_parts import is_selectable, select
from solvers.gradients.modes import GradientMode, within_a_transform
from solvers.gradients.sources import OTHERS, Sources, with_own_tensors
from solvers.loop.integration import Integration
from solvers.loop.problem import Problem
from solvers.loop.solve_state import SolveState
from solvers.loop.step import Step
from solvers.methods.arithmetic import advance
from solvers.methods.base import Method
from solvers.methods.runge_kutta import RungeKutta
from solvers.solution import SUCCESS, Solution
from solvers.step_size.rules import StepSizeRule


class Stepper(Protocol):
    """What :class:`BacksolveAdjoint` asks of a solver: that of a :class:`solvers.NativeSolver`."""

    @property
    def method(self) -> Method: ...
    @property
    def step_size(self) -> StepSizeRule: ...


@dataclass(frozen=True)
class BacksolveAdjoint(GradientMode):
    """By solving the adjoint equation backwards (optimise, then discretise).

    With a(t) = dL/dy(t):  da/dt = -a^T df/dy,  dL/dtheta = -int_{t1}^{t0} a^T df/dtheta dt.
    The state is solved backwards with it, from y(t1). Memory does not grow with the steps; the
    gradient is that of the exact solution, so it differs from that of the numbers by the error of
    the solves. The state is started anew from the forward solution at every time of ``t_eval``.

    Gradients reach every tensor that the field depends on at t0, closures included (torchdiffeq's
    adjoint gives those none). It is cheapest where the field names its tensors:
    :class:`solvers.ParameterisedField`, and the rate of a :class:`solvers.SemilinearField`; a
    tensor that is not named is followed to the parameters it was made of, at every evaluation.

    Caution: a decay is a growth backwards. Over T/tau = 10 the rounding of float32 grows by
    e^10 = 22,000: for stiff leaks take :class:`solvers.Checkpointing`, which has no such limit.

    Args:
        solver: solves backwards; an explicit Runge-Kutta solver of this package, or None for the
            same as forwards.

    Raises:
        ValueError: where the solver of the way back is no explicit Runge-Kutta method of this
            package; on use, with an event or with times of each sample, and under a compiler or
            a function transform; in the backward pass, where a derivative of the gradient is
            asked for (create_graph), or where the field uses an unnamed tensor that it did not use
            at t0.

    Reference: Chen et al. 2018, Neural ordinary differential equations, algorithm 1.
    """

    solver: Stepper | None = None

    def __post_init__(self) -> None:
        if self.solver is None:
            return
        if not isinstance(getattr(self.solver, "method", None), Method):
            raise ValueError(
                "the solver of BacksolveAdjoint must be one of this package's own, such as "
                f"solvers.DormandPrince(), not {self.solver!r}"
            )
        _check_explicit(self.solver.method)

    def check(self, method: Method) -> None:
        if self.solver is None:
            _check_explicit(method)

    def solve(self, integration: Integration) -> Solution:
        problem = integration.problem
        if torch.compiler.is_compiling():
            raise ValueError(f"BacksolveAdjoint does not work under torch.compile: {OTHERS}")
        if problem.events or (problem.times and problem.times.of_each is not None):
            raise ValueError(
                f"BacksolveAdjoint takes no event and no t_eval of each sample: {OTHERS}"
            )
        if not torch.is_grad_enabled():
            return integration.run()
        if within_a_transform():
            raise ValueError(
                f"BacksolveAdjoint does not work under vmap or others of torch.func: {OTHERS}"
            )
        field, named, own = with_own_tensors(problem.field)
        known = Sources(_slope(field, problem), own)
        originals = (*named, *known.leaves)
        if not (problem.y0.requires_grad or originals):
            return integration.run()
        backwards = self._way_back(integration, field)
        tensors = (*own, *known.leaves)
        solutions: list[Solution] = []
        y, ys = _Backsolve.apply(
            integration, backwards, tensors, known, solutions, problem.y0, *originals
        )
        found = solutions[0]
        stats = replace(found.stats, nfe=found.stats.nfe + 1)  # that of _slope
        return replace(found, y=y, ys=None if found.ys is None else ys, stats=stats)

    def _way_back(self, integration: Integration, field: VectorField) -> Integration:
        """The integration of the way back, still without its span."""
        if self.solver is not None:
            integration = replace(
                integration, method=self.solver.method, rule=self.solver.step_size
            )
        problem = replace(integration.problem, field=field, times=None)
        return replace(integration, problem=problem, compiled=False)  # its field differentiates


def _check_explicit(method: Method) -> None:
    if not isinstance(method, RungeKutta):
        raise ValueError(
            "the adjoint equation has no leak to treat by itself, so its solver must be an "
            "explicit Runge-Kutta method: BacksolveAdjoint(solver=solvers.DormandPrince())"
        )


def _slope(field: VectorField, problem: Problem) -> Tensor:
    """The field's graph at the start."""
    y0 = problem.y0
    dtype = torch.promote_types(y0.dtype, torch.float32)
    t0 = torch.full((), problem.t_span[0], dtype=dtype, device=y0.device)
    return field(t0, y0.detach())


class _Adjoint:
    """d/ds of (y, a), stacked as ``(B, 2, ...)``, over s = end - t."""

    independent = True  # as the field's rows were found to be on the way there

    def __init__(self, field: VectorField, end: float, sources: Sources) -> None:
        self.field, self.end, self.sources = field, end, sources
        self.selectable = is_selectable(field)

    def graph(self, s: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The state as a leaf, and the field's result at it."""
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            slope = self.field(self.end - (s.squeeze(1) if s.ndim else s), y)
        self.sources.check(slope, y)
        return y, slope

    def __call__(self, s: Tensor, both: Tensor) -> Tensor:
        y, a = both.unbind(1)
        y, slope = self.graph(s, y)
        if not slope.requires_grad:
            return torch.stack((-slope, torch.zeros_like(a)), 1)
        (pulled,) = torch.autograd.grad(
            slope, y, a, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.stack((-slope.detach(), pulled), 1)

    def select(self, rows: Any) -> _Adjoint:
        with torch.enable_grad():  # the gradient goes to the tensors of all samples
            return _Adjoint(select(self.field, rows), self.end, self.sources)


class _Quadrature:
    """int a^T df/dtheta dt by the weights of the steps that are taken."""

    def __init__(self, method: Method, tensors: Sequence[Tensor]) -> None:
        self.tableau = cast(RungeKutta, method).tableau
        self.tensors = tensors
        self.totals: list[Tensor | None] = [None] * len(tensors)

    def __call__(self, at: SolveState, step: Step) -> None:
        taken = step.judgement.accepted
        for index, weight in enumerate(self.tableau.b):
            if not weight:
                continue
            row = self.tableau.a[index - 1] if index else ()
            y, a = advance(at.y, step.dt, row, step.result.slopes[:index]).unbind(1)
            scale = step.dt * weight if taken is None else step.dt * weight * taken
            if at.done is not None:
                scale = scale * ~at.done.view(-1, *[1] * (at.y.ndim - 1))
            if isinstance(scale, Tensor):
                scale = scale.squeeze(1)
            s = step.t + self.tableau.c[index] * step.dt
            _, slope = cast(_Adjoint, at.bound.field).graph(s, y)
            if not slope.requires_grad:
                continue
            found = torch.autograd.grad(
                slope, self.tensors, a * scale, retain_graph=True, allow_unused=True
            )
            _add(self.totals, found)


def _add(totals: list[Tensor | None], more: Sequence[Tensor | None]) -> None:
    for place, new in enumerate(more):
        old = totals[place]
        if new is not None:
            totals[place] = new if old is None else old + new


class _Backsolve(torch.autograd.Function):
    """(y, ys) as functions of y0 and the tensors of the field."""

    @staticmethod
    def forward(
        integration: Integration,
        backwards: Integration,
        tensors: Sequence[Tensor],
        sources: Sources,
        solutions: list[Solution],
        y0: Tensor,
        *originals: Tensor,
    ) -> tuple[Tensor, Tensor]:
        # Detached: a view of it that is made in here would ask for a gradient, and have none.
        problem = replace(integration.problem, y0=y0.detach())
        solution = replace(integration, problem=problem).run()
        solutions.append(solution)
        return solution.y, y0.new_empty(0) if solution.ys is None else solution.ys

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        integration, ctx.backwards, ctx.tensors, ctx.sources, (solution,), y0, *_ = inputs
        ctx.times = integration.problem.times
        # A failed sample has no gradient, and must not stop the solve backwards.
        healthy = (solution.status == int(SUCCESS)).nonzero().view(-1)
        ctx.rows = None if len(healthy) == len(y0) else healthy
        ctx.save_for_backward(*output)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise ValueError(f"BacksolveAdjoint has no forward-mode derivative: {OTHERS}")

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_ys: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ValueError(
                "BacksolveAdjoint gives first derivatives only, and create_graph asks for a "
                f"gradient that can be differentiated again: {OTHERS}"
            )
        y, ys = ctx.saved_tensors
        backwards, rows, whole = ctx.backwards, ctx.rows, torch.zeros_like(y)
        if rows is not None:
            backwards, y, grad_y, rows = _healthy(backwards, y, grad_y, rows)
        t0, t1 = backwards.problem.t_span
        # From t1 back to every asked time, where its gradient comes in and the state is known.
        stops: list[tuple[float, Tensor | None, Tensor | None]] = [(t0, None, None)]
        if ctx.times is not None:
            part = slice(None) if rows is None else rows
            for index, left in enumerate(ctx.times.remaining):
                stops.append((t1 - left, ys[index][part], grad_ys[index][part]))
        totals: list[Tensor | None] = [None] * len(ctx.tensors)
        end, a = t1, grad_y
        for start, state, jump in reversed(stops):
            if end - start > 1e-12 * (t1 - t0):
                span = start, end
                y, a, found = _segment(backwards, y, a, span, ctx.tensors, ctx.sources)
                _add(totals, found)
            if state is not None and jump is not None:
                y, a = state, a + jump
            end = start
        a = a if rows is None else whole.index_copy(0, rows, a)
        return None, None, None, None, None, a, *totals


def _healthy(
    backwards: Integration, y: Tensor, grad: Tensor, rows: Tensor
) -> tuple[Integration, Tensor, Tensor, Tensor]:
    """The way back of the samples that did not fail.

    Raises:
        ValueError: where the field cannot be asked for them alone.
    """
    if not backwards.problem.selectable:
        raise ValueError(
            "BacksolveAdjoint: some samples failed, and the field cannot be asked for the others "
            f"alone. Write it as a solvers.ParameterisedField; or {OTHERS}"
        )
    with torch.enable_grad():
        problem = replace(backwards.problem, field=select(backwards.problem.field, rows))
    return replace(backwards, problem=problem), y[rows], grad[rows], rows


def _segment(
    backwards: Integration,
    y: Tensor,
    a: Tensor,
    span: tuple[float, float],
    tensors: Sequence[Tensor],
    sources: Sources,
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """State, adjoint and the gradients of the tensors, from the end of a span to its start."""
    start, end = span
    quadrature = _Quadrature(backwards.method, tensors)
    field = _Adjoint(backwards.problem.field, end, sources)
    problem = Problem(field, torch.stack((y, a), 1), (0.0, end - start))
    solution = replace(backwards, problem=problem, observe=quadrature if tensors else None).run()
    solution.throw()
    y, a = solution.y.unbind(1)
    return y, a, quadrature.totals
