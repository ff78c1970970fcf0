"""The integration loop: a method and a step-size rule over a time span.

The loop is a pure function from one :class:`SolveState` to the next, so that a gradient mode can
run a part of it again. Of it this always holds: ``y`` is the state of each sample at the
time that its ``control.remaining`` leaves, of which every step was accepted; a sample is in
``finished`` or it is live, never both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from solvers.checks import holds
from solvers.fields.base import VectorField
from solvers.fields.batch_parts import is_selectable
from solvers.loop.conclusion import conclude
from solvers.loop.crossings import StepTaken, Stops, meet_events
from solvers.loop.events import Event
from solvers.loop.finished_samples import (
    end_samples,
    end_where_field_is_not_finite,
    made_again,
)
from solvers.loop.independence import check_by_derivative, check_by_moving
from solvers.loop.problem import Problem
from solvers.loop.saved_times import at_start, records_of_step
from solvers.loop.solve_state import SolveState
from solvers.loop.step import Step, time_of, times_of, try_compiled, try_step
from solvers.methods.arithmetic import seen_time, time_dtype
from solvers.methods.base import BoundMethod, Method
from solvers.methods.interpolation import Path
from solvers.methods.pieces import Piece
from solvers.solution import (
    SUCCESS,
    Solution,
    all_finite,
    finite_samples,
)
from solvers.step_size.rules import BudgetRule, Examined, StepSizeRule, per_sample

Advance = Callable[[SolveState], SolveState]
Running = Callable[[SolveState], bool]
Drive = Callable[[Advance, Running, SolveState], SolveState]
"""Applies the first while the second holds."""


def straight_on(advance: Advance, running: Running, state: SolveState) -> SolveState:
    """Step after step."""
    while running(state):
        state = advance(state)
    return state


@dataclass(frozen=True)
class Integration:
    """One problem and how to solve it.

    Attributes:
        problem: with a batch axis; of at least one element.
        method, rule: the solver's choices.
        compiled: whether steps are tried by torch.compile.
        observe: told of every step, with where it started.
    """

    problem: Problem
    method: Method
    rule: StepSizeRule
    compiled: bool = False
    observe: Callable[[SolveState, Step], None] | None = None

    def run(self, drive: Drive = straight_on) -> Solution:
        """Solve, without throwing."""
        end = self.integrate(drive)
        solution = conclude(self.problem, end)
        if not isinstance(self.rule, BudgetRule) or all_finite(solution.y.detach()):
            return solution
        # Rare, so paid for only here: the same solve again, examined at every step.
        careful = replace(self, rule=Examined(self.rule)).run(drive)
        stats, before = careful.stats, solution.stats
        jacobians = before.jacobians + stats.jacobians
        stats = replace(stats, nfe=before.nfe + stats.nfe, jacobians=jacobians)
        return replace(careful, stats=stats)

    def integrate(self, drive: Drive = straight_on) -> SolveState:
        """Where the solve stands once no sample has steps to take."""
        return drive(self._advance, self._running, self._begin())

    def bind(self, field: VectorField) -> BoundMethod:
        """The method on a field, as the rule wants it."""
        rule = self.rule
        return self.method.bind(field, controlled=rule.controlled, bounded=rule.bounded)

    @property
    def _droppable(self) -> bool:
        return self.problem.selectable

    @property
    def _rows_in_question(self) -> bool:
        """Whether rows may depend on each other that have times, or ends, of their own."""
        known = self._droppable or getattr(self.problem.field, "independent", False)
        apart = self.rule.controlled or bool(self.problem.events)
        return apart and self.problem.y0.shape[0] > 1 and not known

    def _look_at_rows(self, at: SolveState, t: Tensor) -> int:
        """Look again whether they do, since it may show in some states and at some times alone.

        Returns the evaluations spent on it.
        """
        if not self._rows_in_question:
            return 0
        asked = check_by_moving(at.bound.first, t, at.y, at.control.remaining, at.looks)
        if torch.is_grad_enabled():  # where gradients depend on each other, values may not yet
            asked += check_by_derivative(at.bound.first, t, at.y)
        return asked

    def _begin(self) -> SolveState:
        problem = self.problem
        field, y0 = problem.field, problem.y0
        bound = self.bind(field)
        start = self.rule.start(bound, problem.t_span, y0)
        at = SolveState(
            bound,
            y0,
            start.control,
            first=start.first,
            evaluations=start.evaluations,
            live=y0.shape[0],
        )
        if getattr(field, "autonomous", False):
            at = at._replace(time=time_of(problem.t_span[0], 0.0, y0))
        if problem.times is not None:
            at = at._replace(records=at_start(problem.times, y0, at.control.remaining))
        if problem.events:
            t = seen_time(per_sample(problem.t_span[0], y0, time_dtype(y0.device)), y0)
            functions = tuple(event.function for event in problem.events)
            at = at._replace(events=functions, event_values=self._event_values(functions, t, y0))
            if not self.rule.controlled:
                _check_readable(at.event_values)
                return self._examine_rows(at)
        return self._examine_start(at) if self.rule.controlled else at

    def _event_values(self, functions: Sequence[Any], t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(self.problem.events, functions, strict=True)
        return tuple(event.value(function, t, y) for event, function in pairs)

    def _examine_start(self, at: SolveState) -> SolveState:
        """Look at the first evaluation, and at whether the samples may go their own ways."""
        first = at.first
        assert first is not None
        try:
            all_good = bool(finite_samples(first.detach()).all())
        except RuntimeError as error:
            raise ValueError(UNREADABLE) from error
        at = self._examine_rows(at)
        if all_good:
            return at
        return end_where_field_is_not_finite(at, first, droppable=self._droppable)

    def _examine_rows(self, at: SolveState) -> SolveState:
        """Look at whether rows that are in question depend on each other at the start."""
        self._examine_events(at)
        if not self._rows_in_question:
            return at
        t = seen_time(time_of(self.problem.t_span[1], at.control.remaining, at.y), at.y)
        asked = check_by_derivative(at.bound.first, t, at.y)
        return at._replace(evaluations=at.evaluations + asked)

    def _examine_events(self, at: SolveState) -> None:
        """Look at whether an event's values of rows depend on each other."""
        columns = -1, *[1] * (at.y.ndim - 1)
        t = seen_time(times_of(self.problem.t_span[1], at.control.remaining, at.y), at.y)
        for event, function in zip(self.problem.events, at.events, strict=True):
            if at.y.shape[0] > 1 and not is_selectable(function):
                try:
                    check_by_derivative(partial(_column, event, function, columns), t, at.y)
                except ValueError as error:
                    raise ValueError(f"an event's function: {error}") from error

    def _running(self, at: SolveState) -> bool:
        return at.live > 0 and self.rule.running(at.control)

    def _advance(self, at: SolveState) -> SolveState:
        """One step, tried by all samples that are evaluated."""
        problem = self.problem
        wanted = problem.times is not None or bool(problem.events) or problem.dense
        step = (try_compiled if self.compiled else try_step)(
            at.bound, self.rule, problem.t_span[1], at.y, at.control, at.time, at.first,
            wanted and self.method.needs_end,
        )  # fmt: skip
        if step.judgement.accepted is None:
            return self._take_for_all(at, step)
        if problem.events and at.tries == 0:
            _check_readable([step.result.y])
        if torch.is_grad_enabled() and not step.is_finite:
            counted = at._replace(evaluations=at.evaluations + step.evaluations)
            droppable = self._droppable
            less = end_where_field_is_not_finite(counted, step.first, droppable=droppable)
            if less.live < at.live:
                return less
            step = made_again(at, step, droppable=droppable)
        if at.tries == 4**at.looks:
            asked = self._look_at_rows(at, step.t)
            at = at._replace(evaluations=at.evaluations + asked, looks=at.looks + 1)
        if self.observe is not None:
            self.observe(at, step)
        return self._take_where_accepted(at, step)

    def _take_for_all(self, at: SolveState, step: Step) -> SolveState:
        """Take the step for every sample, unexamined."""
        if self.observe is not None:
            self.observe(at, step)
        after = self._moved(at, step, step.result.y, step.result.last)
        return self._recorded(at, after, step, None, None)

    def _recorded(
        self,
        at: SolveState,
        after: SolveState,
        step: Step,
        accepted: Tensor | None,
        stops: Stops | None,
    ) -> SolveState:
        """With the states within the step just taken that are asked for.

        Args:
            at, after: where the solve stood before it, and stands after it.
            step: the step.
            accepted: which samples take it, ``(n, 1, ..., 1)``; None for all.
            stops: which end at an event in it; None without events.
        """
        problem = self.problem
        if problem.times is None and not problem.dense:
            return after
        ends = at.control.remaining, after.control.remaining
        last = not self.rule.running(after.control)
        if problem.dense:
            t1 = problem.t_span[1]
            piece = Piece.of(_path(at, step), at.rows, t1, ends[1], accepted, last=last)
            after = after._replace(pieces=(*at.pieces, piece))
        if problem.times is None:
            return after
        records = records_of_step(
            problem.times, _path(at, step), *ends, last=last, accepted=accepted, rows=at.rows,
            until=None if stops is None else stops.times, t1=problem.t_span[1],
        )  # fmt: skip
        return after._replace(records=at.records + records)

    @staticmethod
    def _moved(
        at: SolveState, step: Step, y: Tensor, first: Tensor | None, accepted: Tensor | None = None
    ) -> SolveState:
        return at._replace(
            y=y,
            control=step.judgement.control,
            first=first,
            evaluations=at.evaluations + step.evaluations,
            tries=at.tries + 1,
            accepted=accepted,
        )

    def _take_where_accepted(self, at: SolveState, step: Step) -> SolveState:
        """Take the accepted steps, and let the samples end that have arrived or failed."""
        accepted, ended = step.judgement.accepted, step.judgement.ended
        assert accepted is not None
        assert ended is not None
        result = step.result
        # A derivative at the start of a step that is tried again is still the one there.
        first = None
        if result.last is not None:
            first = _new_where(accepted, result.last, step.first)
        y = _new_where(accepted, result.y, at.y)
        if at.tries + 1 >= self.rule.most_tries:
            ended = torch.ones_like(ended)
        if at.done is not None:
            ended = ended & ~at.done
            accepted = accepted & ~at.done.view(accepted.shape)
        taken = accepted.view(-1)
        counts = taken.long() if at.accepted is None else at.accepted + taken
        after = self._moved(at, step, y, first, counts)
        stops = None
        if self.problem.events:
            after, stops = self._meet_events(at, after, step, taken)
            ended = ended | (stops.which >= 0)
        after = self._recorded(at, after, step, accepted, stops)
        if not bool(ended.any()):
            return after
        if not at.finished:  # once more before any row is told an answer
            asked = self._look_at_rows(at, step.t)
            after = after._replace(evaluations=after.evaluations + asked)
        status = self.rule.status(step.judgement)
        if stops is not None:
            status = torch.where(stops.which < 0, status, int(SUCCESS)).to(status.dtype)
        return end_samples(after, ended, status, stops, droppable=self._droppable)

    def _meet_events(
        self, at: SolveState, after: SolveState, step: Step, taken: Tensor
    ) -> tuple[SolveState, Stops]:
        """Look for events in the step just taken; samples that end at one are left there."""
        t1, y = self.problem.t_span[1], after.y
        start, end = (times_of(t1, x.control.remaining, y) for x in (at, after))
        now = self._event_values(at.events, seen_time(end, y), y)
        started = torch.full_like(taken, self.problem.resumed)
        if at.accepted is not None:
            started = started | (at.accepted > 0)
        rows = torch.arange(len(taken), device=taken.device) if at.rows is None else at.rows
        whole = StepTaken(_path(at, step), start, taken, started, rows)
        y, stops, crossed = meet_events(
            self.problem.events, at.events, whole, at.event_values, now, y
        )
        kept = zip(now, at.event_values, strict=True)
        values = tuple(torch.where(taken, new, old) for new, old in kept)
        return after._replace(y=y, event_values=values, crossings=at.crossings + crossed), stops


UNREADABLE = (
    "error control chooses its steps by the values of the state, which vmap hides, and whatever "
    "else traces a function without them. A solver takes a whole batch by itself, with step sizes "
    "for each sample: give it y0 of shape (B, ...) in place of vmap. Or take a number of steps, "
    "such as DormandPrince(steps=20), which every transform can follow"
)


def _column(event: Event, function: Any, shape: tuple[int, ...], t: Tensor, y: Tensor) -> Tensor:
    """An event's values, of as many axes as the state."""
    return event.value(function, t, y).view(shape)


def _new_where(accepted: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """The new values of the samples that take a step."""
    if accepted.numel() > 1:
        return torch.where(accepted, new, old)
    return new if bool(accepted) else old  # a step that is thrown away stays out of the graph


def _check_readable(values: Sequence[Tensor]) -> None:
    """Raise ValueError where the values that events are decided by cannot be looked at."""
    if any(holds(torch.isfinite(value)) is None for value in values):
        raise ValueError(
            "events end samples by the data, which function transforms such as vmap cannot follow: "
            "give the batch an axis of the state, or leave the event out there"
        )


def _path(at: SolveState, step: Step) -> Path:
    """The states within the step that was tried."""
    return at.bound.path(at.y, step.dt, step.first, step.result)
