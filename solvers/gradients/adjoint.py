"""The adjoint method: the gradient by a second solve, backwards in time, of constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from solvers.checks import holds, within_a_transform
from solvers.fields.base import VectorField
from solvers.fields.batch_parts import select
from solvers.gradients.adjoint_equation import AdjointField, Time, add_to, gathering, of_rows
from solvers.gradients.adjoint_events import Landmarks, gathered
from solvers.gradients.modes import GradientMode
from solvers.gradients.sources import OTHERS, Sources, with_own_tensors
from solvers.loop.integration import Integration
from solvers.loop.problem import Problem
from solvers.loop.saved_times import Times
from solvers.loop.step import time_of
from solvers.methods.arithmetic import seen_time, time_dtype
from solvers.methods.base import Method
from solvers.methods.runge_kutta import RungeKutta
from solvers.solution import SUCCESS, Solution
from solvers.step_size.pid import PID
from solvers.step_size.rules import BudgetRule, Examined, StepSizeRule


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
    the solves. The state is started anew from the forward solution at every time of ``t_eval``,
    and at every crossing of an event, whose time has its gradient too.

    Gradients reach every tensor that the field depends on at t0, closures included (torchdiffeq's
    adjoint gives those none). It is cheapest where the field names its tensors:
    :class:`solvers.ParameterisedField`, and the rate of a :class:`solvers.SemilinearField`; a
    tensor that is not named is followed to the parameters it was made of, at every evaluation.

    Caution: a decay is a growth backwards. Over T/tau = 10 the rounding of float32 grows by
    e^10 = 22,000: for stiff leaks take :class:`solvers.Checkpointing`, which has no such limit.

    Args:
        solver: solves backwards; an explicit Runge-Kutta solver of this package, or None for the
            same as forwards.
        to: tensors that gradients flow to besides the state and the times; None for all that the
            field is found to depend on, which is then looked at in every evaluation.

    Raises:
        ValueError: where the solver of the way back is no explicit Runge-Kutta method of this
            package; on use, with a path or with tolerances of each sample, and under a compiler
            or a function transform; in the backward pass, where a derivative of the gradient is
            asked for (create_graph), or where the field uses an unnamed tensor that it did not use
            at t0.

    Reference: Chen et al. 2018, Neural ordinary differential equations, algorithm 1.
    """

    solver: Stepper | None = None
    to: tuple[Tensor, ...] | None = dataclass_field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.to is not None and not all(isinstance(x, Tensor) for x in self.to):
            raise ValueError(f"to must be a tuple of tensors, not {self.to!r}")
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
            from solvers import beside_the_graph

            return cast(Solution, beside_the_graph.adjoint(self.solve, integration))
        if not torch.is_grad_enabled():
            return integration.run()
        if within_a_transform():
            raise ValueError(
                f"BacksolveAdjoint does not work under vmap or others of torch.func: {OTHERS}"
            )
        field, named, own = with_own_tensors(problem.field, self.to)
        known = Sources(own)
        if self.to is None:
            known.find(_slope(field, integration))
        originals = (*named, *known.leaves)
        asked = problem.times.of_each if problem.times is not None else None
        if not (problem.y0.requires_grad or originals or _wants_gradient(asked)):
            return integration.run()
        if problem.dense:
            raise ValueError(
                "BacksolveAdjoint keeps no steps, so its path has no gradient: give the times as "
                f"t_eval, or {OTHERS}"
            )
        backwards = self._way_back(integration, field)
        tensors = (*own, *known.leaves)
        solutions: list[Solution] = []
        landmarks = ends = None
        if problem.events:
            with torch.no_grad():
                state = problem.y0.detach()
                landmarks = Landmarks.of(
                    problem, replace(integration, problem=replace(problem, y0=state)).run()
                )
            times, states, back = landmarks.merged()
            solutions.append(replace(landmarks.found, ys=states))
            integration = replace(integration, problem=replace(problem, times=times))
            ends, asked = landmarks.end.times[0], None
        y, ys = _Backsolve.apply(
            integration, backwards, tensors, known, solutions, ends, asked, problem.y0, *originals
        )
        if landmarks is not None:
            found = landmarks.solution(gathered(ys, back))
        else:
            found = replace(solutions[0], y=y, ys=None if solutions[0].ys is None else ys)
        if self.to is not None:
            return found
        return replace(found, stats=replace(found.stats, nfe=found.stats.nfe + 1))  # of _slope

    def _way_back(self, integration: Integration, field: VectorField) -> Integration:
        """The integration of the way back, still without its span."""
        if self.solver is not None:
            integration = replace(
                integration, method=self.solver.method, rule=self.solver.step_size
            )
        problem = replace(integration.problem, field=field, times=None, events=())
        rule = integration.rule
        if isinstance(rule, Examined):  # for events, of which the way back has none
            rule = rule.rule
        if isinstance(rule, PID) and any(
            isinstance(x, Tensor) and x.ndim >= problem.y0.ndim for x in (rule.rtol, rule.atol)
        ):
            raise ValueError(
                "BacksolveAdjoint: tolerances of each sample cannot be those of the way back; "
                f"give it a solver of its own, or {OTHERS}"
            )
        # Not compiled: its field differentiates.
        return replace(integration, problem=problem, rule=rule, compiled=False)


def _check_explicit(method: Method) -> None:
    if not isinstance(method, RungeKutta):
        raise ValueError(
            "the adjoint equation has neither a leak to treat by itself nor a Jacobian to solve "
            "with, so its solver must be an explicit Runge-Kutta method: "
            "BacksolveAdjoint(solver=solvers.DormandPrince()), or adjoint_method='dopri5' of "
            "odeint_adjoint. For a stiff field take Backpropagation() or Checkpointing()"
        )


def _slope(field: VectorField, integration: Integration) -> Tensor:
    """The field's graph at the start."""
    y0 = integration.problem.y0.detach()
    return field(_as_steps_give(integration.problem.t_span[0], y0, integration.rule), y0)


def _as_steps_give(time: float, y: Tensor, rule: StepSizeRule) -> Tensor:
    """A time that all samples share, as steps of the rule give it to the field."""
    t = time_of(time, 0.0, y)
    rule = rule.rule if isinstance(rule, Examined) else rule
    if isinstance(rule, BudgetRule) and not isinstance(rule.whole(1.0, y), Tensor):
        return t
    return seen_time(t.expand(len(y), *[1] * (y.ndim - 1)), y)


class _Backsolve(torch.autograd.Function):
    """(y, ys) as functions of y0 and the tensors of the field."""

    @staticmethod
    def forward(
        integration: Integration,
        backwards: Integration,
        tensors: Sequence[Tensor],
        sources: Sources,
        solutions: list[Solution],
        ends: Tensor | None,
        asked: Tensor | None,
        y0: Tensor,
        *originals: Tensor,
    ) -> tuple[Tensor, Tensor]:
        if not solutions:
            # Detached: a view of it that is made in here would ask for a gradient, and have none.
            problem = replace(integration.problem, y0=y0.detach())
            solutions.append(replace(integration, problem=problem).run())
        (solution,) = solutions
        return solution.y, y0.new_empty(0) if solution.ys is None else solution.ys

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        integration, ctx.backwards, ctx.tensors, ctx.sources, (solution,), ctx.ends = inputs[:6]
        y0 = inputs[7]
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
        if holds(grad_y) is None:
            raise ValueError(
                "BacksolveAdjoint pulls back one gradient at a time, and vectorize=True or "
                f"is_grads_batched=True asks for many: call it for one after the other, or {OTHERS}"
            )
        y, ys = ctx.saved_tensors
        backwards, rows, whole = ctx.backwards, ctx.rows, torch.zeros_like(y)
        if rows is not None:
            backwards, y, grad_y, rows = _healthy(backwards, y, grad_y, rows)
        t0, t1 = backwards.problem.t_span
        times = ctx.times
        if times is not None:
            part = slice(None) if rows is None else rows
            ys, grad_ys, times = ys[:, part], grad_ys[:, part], times.select(part)
        # From t1 back to every asked time, where its gradient comes in and the state is known.
        totals: list[Tensor | None] = [None] * len(ctx.tensors)
        end: Time = t1
        if ctx.ends is not None:
            end = ctx.ends if rows is None else ctx.ends[rows]
        a = grad_y
        for start, index in reversed(_stops(t0, t1, times)):
            y, a, found = _segment(backwards, y, a, (start, end), ctx.tensors, ctx.sources)
            add_to(totals, found)
            if index is not None:
                y, a = ys[index], a + grad_ys[index]
            end = start
        a = a if rows is None else whole.index_copy(0, rows, a)
        asked = None
        if ctx.needs_input_grad[6]:
            asked = _of_times(backwards, ctx.times, times, ys, grad_ys, rows)
        return None, None, None, None, None, None, asked, a, *totals


def _wants_gradient(asked: Tensor | None) -> bool:
    return asked is not None and asked.requires_grad


def _stops(t0: float, t1: float, times: Times | None) -> list[tuple[Time, int | None]]:
    """The times at which the way back stops, forwards, with the number of each that is asked."""
    stops: list[tuple[Time, int | None]] = [(t0, None)]
    if times is None:
        return stops
    if times.of_each is None:
        asked: list[Time] = [t1 - left for left in times.remaining]
    elif times.shared:
        asked = [t1 - left for left in times.of_each.detach().squeeze(1).tolist()]
    else:
        asked = list((t1 - times.of_each.detach()).unbind())
    return stops + [(time, index) for index, time in enumerate(asked)]


def _of_times(
    backwards: Integration,
    asked: Times,
    times: Times,
    ys: Tensor,
    grad_ys: Tensor,
    rows: Tensor | None,
) -> Tensor:
    """dL/d(the time that remains) = -dL/dy . dy/dt at every asked time, in its own shape."""
    given = asked.of_each
    assert given is not None
    t1 = backwards.problem.t_span[1]
    found = []
    for index, (_, state, grad) in enumerate(zip(given, ys, grad_ys, strict=True)):
        own = cast(Tensor, times.of_each)[index].to(device=state.device)
        if asked.shared:
            t = _as_steps_give(t1 - float(own), state, backwards.rule)
        else:
            t = of_rows(t1 - own, state).to(state.dtype)
        slope = backwards.problem.field(t, state).detach()
        found.append(-(slope * grad).flatten(1).sum(1).to(given.dtype))
    each = torch.stack(found)
    if asked.shared:
        return each.sum(1, keepdim=True).to(given.device)
    if rows is not None:
        each = each.new_zeros(given.shape).index_copy(1, rows, each)
    return each.to(given.device)


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
    span: tuple[Time, Time],
    tensors: Sequence[Tensor],
    sources: Sources,
) -> tuple[Tensor, Tensor, Sequence[Tensor | None]]:
    """State, adjoint and the gradients of the tensors, from the end of a span to its start."""
    start, end = span
    t0, t1 = backwards.problem.t_span
    each, speed = end - start, cast(Time, 1.0)
    if isinstance(each, Tensor) and each.numel() == 1:
        each, end = float(each), float(end)
    length = each if isinstance(each, float) else float(each.max())
    if isinstance(each, Tensor) and length > 0:
        end, speed = torch.as_tensor(end).expand_as(each), each / length
        end, speed = (x.to(y.device, time_dtype(y.device)) for x in (end, speed))
    if length <= 1e-12 * (t1 - t0):
        return y, a, ()
    field = AdjointField(backwards.problem.field, end, speed, sources)
    both = torch.stack((y, a), 1)
    backwards = replace(backwards, problem=Problem(field, both, (0.0, length)))
    gradients = gathering(backwards, tensors)
    solution = gradients.integration.run()
    solution.throw()
    y, a = solution.y.unbind(1)
    return y, a, gradients.totals
