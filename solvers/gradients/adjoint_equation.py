"""The adjoint equation as a field, and the gradients of the tensors that are gathered along it.

da/ds = a^T df/dy runs back with the state; dL/dtheta = int a^T df/dtheta ds is summed up by the
weights of the steps that are taken, as one more part of the state would be, but without its error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from solvers.fields.base import VectorField
from solvers.fields.batch_parts import is_selectable, select
from solvers.gradients.sources import Sources
from solvers.loop.integration import Integration
from solvers.loop.solve_state import SolveState
from solvers.loop.step import Step
from solvers.methods.arithmetic import Increment, advance
from solvers.methods.base import BoundMethod, StepResult
from solvers.methods.interpolation import Path
from solvers.methods.runge_kutta import RungeKutta
from solvers.step_size.rules import BudgetRule

Time = float | Tensor
Sums = list[Tensor | None]
"""A gradient for each of the tensors, None while there is none."""


def of_rows(value: Time, y: Tensor) -> Any:
    """A time of each row, as it broadcasts against the state."""
    return value.view(-1, *[1] * (y.ndim - 1)) if isinstance(value, Tensor) else value


def add_to(totals: Sums, more: Sequence[Tensor | None], scale: float | Tensor = 1.0) -> None:
    """Add gradients, times a number."""
    for place, new in enumerate(more):
        old = totals[place]
        if new is None:
            continue
        if old is not None and not isinstance(scale, Tensor):
            totals[place] = torch.add(old, new, alpha=scale)
        else:
            part = new * scale
            totals[place] = part if old is None else old + part


class AdjointField:
    """d/ds of (y, a), stacked as ``(B, 2, ...)``, over s with t = end - speed s.

    ``end`` and ``speed`` are numbers, or have an entry a sample ``(B,)``.
    """

    independent = True  # as the field's rows were found to be on the way there

    def __init__(self, field: VectorField, end: Time, speed: Time, sources: Sources) -> None:
        self.field, self.end, self.speed, self.sources = field, end, speed, sources
        self.selectable = is_selectable(field)

    def graph(self, s: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The state as a leaf, and dy/dt at it."""
        s = s.squeeze(1) if s.ndim else s
        if isinstance(self.speed, Tensor):
            s = of_rows(self.speed, y) * s.to(self.speed.dtype)
        t = (of_rows(self.end, y) - s).to(y.dtype if s.ndim else s.dtype)
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            slope = self.field(t, y)
        self.sources.check(slope, y)
        return y, slope

    def __call__(self, s: Tensor, both: Tensor) -> Tensor:
        return self.pulled(s, both, ())[0]

    def pulled(
        self, s: Tensor, both: Tensor, tensors: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """d/ds of the state, and a^T df/dtheta of the tensors."""
        y, a = both.unbind(1)
        y, slope = self.graph(s, y)
        by_y, found = None, cast(Sequence[Tensor | None], [None] * len(tensors))
        if slope.requires_grad:
            by_y, *found = torch.autograd.grad(
                slope, (y, *tensors), a, retain_graph=True, allow_unused=True
            )
        pulled = torch.zeros_like(a) if by_y is None else by_y
        change = torch.stack((-slope.detach(), pulled), 1)
        if isinstance(self.speed, Tensor):
            change = change * of_rows(self.speed, change).to(change.dtype)
        return change, found

    def select(self, rows: Any) -> AdjointField:
        end, speed = (x[rows] if isinstance(x, Tensor) else x for x in (self.end, self.speed))
        with torch.enable_grad():  # the gradient goes to the tensors of all samples
            return AdjointField(select(self.field, rows), end, speed, self.sources)


def gathering(integration: Integration, tensors: Sequence[Tensor]) -> Together | Apart:
    """The integration of an :class:`AdjointField`, told to gather the gradients of the tensors."""
    y, rule, field = integration.problem.y0, integration.rule, integration.problem.field
    alike = isinstance(rule, BudgetRule) and not isinstance(rule.whole(1.0, y), Tensor)
    one_step = (alike or len(y) == 1) and not isinstance(cast(AdjointField, field).speed, Tensor)
    return (Together if one_step else Apart)(integration, tensors)


class Apart:
    """Where samples have steps of their own: once a step is taken, by its stages made again.

    Which samples take it is not known before.
    """

    def __init__(self, integration: Integration, tensors: Sequence[Tensor]) -> None:
        self.tableau = cast(RungeKutta, integration.method).tableau
        self.tensors = tensors
        self.totals: Sums = [None] * len(tensors)
        self.integration = replace(integration, observe=self._take) if tensors else integration

    def _take(self, at: SolveState, step: Step) -> None:
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
            field = cast(AdjointField, at.bound.field)
            if isinstance(field.speed, Tensor):
                scale = scale * of_rows(field.speed, y).to(y.dtype)
            s = step.t + self.tableau.c[index] * step.dt
            _, slope = field.graph(s, y)
            if not slope.requires_grad:
                continue
            found = torch.autograd.grad(
                slope, self.tensors, a * scale, retain_graph=True, allow_unused=True
            )
            add_to(self.totals, found)


class Together:
    """Where one step is that of all: pulled with the state's, and summed where it is taken.

    Attributes:
        first: a^T df/dtheta at the start of the step, None where it is not known.
        last: at its end, where that is an evaluation of the step.
        inner: the sum over the stages between, by their weights.
    """

    def __init__(self, integration: Integration, tensors: Sequence[Tensor]) -> None:
        method = cast(RungeKutta, integration.method)
        self.tableau = method.tableau
        self.tensors = tensors
        self.totals: Sums = [None] * len(tensors)
        self.first: Sequence[Tensor | None] | None = None
        self.last: Sequence[Tensor | None] | None = None
        self.inner: Sums = []
        self.integration = integration
        if tensors:
            own = GatheringRungeKutta(method.tableau, self)
            self.integration = replace(integration, method=own, observe=self._take)

    def _take(self, at: SolveState, step: Step) -> None:
        taken = step.judgement.accepted
        if taken is not None and not bool(taken.all()):
            return  # the start stays where it is
        dt = step.dt.reshape(()) if isinstance(step.dt, Tensor) else step.dt
        if self.tableau.b[0] and self.first is not None:
            add_to(self.inner, self.first, self.tableau.b[0])
        add_to(self.totals, self.inner, dt)
        self.first, self.last = self.last, None


@dataclass(frozen=True)
class GatheringRungeKutta(RungeKutta):
    """The method of the way back that tells :class:`Together` of its stages."""

    into: Together = field(compare=False)

    def bind(
        self, field: VectorField, *, controlled: bool = False, bounded: bool = False
    ) -> BoundMethod:
        stages = _Stages(cast(AdjointField, field), self.into)
        inner = RungeKutta(self.tableau).bind(stages, controlled=controlled)
        return _BoundGathering(self, field, stages, inner)


class _Stages:
    """The adjoint field as it is asked stage by stage."""

    def __init__(self, field: AdjointField, into: Together) -> None:
        self.field, self.into = field, into
        self.stage = 0

    def __call__(self, s: Tensor, both: Tensor) -> Tensor:
        into, stage = self.into, self.stage
        self.stage += 1
        tableau = into.tableau
        weight = tableau.b[stage] if stage else 0.0
        at_end = tableau.first_same_as_last and stage == tableau.stages - 1
        known = into.first is not None if stage == 0 else not (weight or at_end)
        if known:
            return self.field(s, both)
        slope, found = self.field.pulled(s, both, into.tensors)
        if stage == 0:
            into.first = found
        elif at_end:
            into.last = found
        else:
            add_to(into.inner, found, weight)
        return slope


class _BoundGathering(BoundMethod):
    """Counts the stages of each step."""

    def __init__(
        self, method: GatheringRungeKutta, field: VectorField, counted: _Stages, inner: BoundMethod
    ) -> None:
        super().__init__(method, field)
        self.counted, self.inner = counted, inner

    def first(self, t: Tensor, y: Tensor) -> Tensor:
        self.counted.stage = 0
        return self.inner.first(t, y)

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> StepResult:
        into = self.counted.into
        into.inner, into.last = [None] * len(into.tensors), None
        self.counted.stage = 1
        return self.inner.step(t, y, dt, first)

    def error(self, result: StepResult, dt: Increment) -> Tensor:
        return self.inner.error(result, dt)

    def path(self, y: Tensor, dt: Increment, first: Tensor, result: StepResult) -> Path:
        return self.inner.path(y, dt, first, result)
