"""The integration loop: a method and a step-size rule over a time span.

The loop is a pure function from one :class:`SolveState` to the next, so that a gradient mode can
run a part of it again. Of it this always holds: ``y`` is the state of each sample at the
time that its ``control.remaining`` leaves, of which every step was accepted; a sample is in
``finished`` or it is live, never both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from solvers.fields.base import VectorField
from solvers.loop.events import Event
from solvers.loop.finished_samples import (
    end_samples,
    end_where_field_is_not_finite,
    made_again,
)
from solvers.loop.independence import check_by_derivative, check_by_moving
from solvers.loop.problem import Problem
from solvers.loop.saved_times import at_start, records_of_step, stack_records
from solvers.loop.solve_state import SolveState
from solvers.loop.step import Step, time_of, try_compiled, try_step
from solvers.methods.arithmetic import seen_time
from solvers.methods.base import BoundMethod, Method
from solvers.methods.interpolation import Path
from solvers.solution import (
    SUCCESS,
    Solution,
    Stats,
    all_finite,
    all_succeeded,
    finite_samples,
)
from solvers.step_size.rules import BudgetRule, Examined, StepSizeRule

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
        if end.live and not end.finished:
            solution = self._conclude_together(end)
        else:
            solution = self._conclude(end)
        if not isinstance(self.rule, BudgetRule) or all_finite(solution.y.detach()):
            return solution
        # Rare, so paid for only here: the same solve again, examined at every step.
        careful = replace(self, rule=Examined(self.rule)).run(drive)
        stats = replace(careful.stats, nfe=solution.stats.nfe + careful.stats.nfe)
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
        """Whether rows may depend on each other that are to have times of their own."""
        known = self._droppable or getattr(self.problem.field, "independent", False)
        return self.rule.controlled and self.problem.y0.shape[0] > 1 and not known

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
        field, y0, (t0, t1) = problem.field, problem.y0, problem.t_span
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
            at = at._replace(time=time_of(t0, 0.0, y0))
        if problem.times is not None:
            at = at._replace(records=at_start(problem.times, y0, at.control.remaining))
        if problem.event is not None:
            t = seen_time(t1 - at.control.remaining, y0)
            value = problem.event.value(problem.event.function, t, y0)
            at = at._replace(event=problem.event.function, event_value=value)
        return self._examine_start(at) if self.rule.controlled else at

    def _examine_start(self, at: SolveState) -> SolveState:
        """Look at the first evaluation, and at whether the samples may go their own ways."""
        problem, first = self.problem, at.first
        assert first is not None
        try:
            all_good = bool(finite_samples(first.detach()).all())
        except RuntimeError as error:
            raise ValueError(UNREADABLE) from error
        if self._rows_in_question:
            t = seen_time(problem.t_span[1] - at.control.remaining, at.y)
            asked = check_by_derivative(at.bound.first, t, at.y)
            at = at._replace(evaluations=at.evaluations + asked)
        if all_good:
            return at
        return end_where_field_is_not_finite(at, first, droppable=self._droppable)

    def _running(self, at: SolveState) -> bool:
        return at.live > 0 and self.rule.running(at.control)

    def _advance(self, at: SolveState) -> SolveState:
        """One step, tried by all samples that are evaluated."""
        problem = self.problem
        wanted = problem.times is not None or problem.event is not None
        step = (try_compiled if self.compiled else try_step)(
            at.bound, self.rule, problem.t_span[1], at.y, at.control, at.time, at.first,
            wanted and self.method.needs_end,
        )  # fmt: skip
        if step.judgement.accepted is None:
            return self._take_for_all(at, step)
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
        times = self.problem.times
        if times is None:
            return after
        records = records_of_step(
            times,
            _path(at, step),
            at.control.remaining,
            after.control.remaining,
            last=not self.rule.running(after.control),
        )
        return after._replace(records=at.records + records)

    @staticmethod
    def _moved(at: SolveState, step: Step, y: Tensor, first: Tensor | None) -> SolveState:
        return at._replace(
            y=y,
            control=step.judgement.control,
            first=first,
            evaluations=at.evaluations + step.evaluations,
            tries=at.tries + 1,
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
            first = torch.where(accepted, result.last, step.first)
        after = self._moved(at, step, torch.where(accepted, result.y, at.y), first)
        if after.tries >= self.rule.most_tries:
            ended = torch.ones_like(ended)
        if at.done is not None:
            ended = ended & ~at.done
            accepted = accepted & ~at.done.view(accepted.shape)
        taken = accepted.view(-1)
        counts = taken.long() if at.accepted is None else at.accepted + taken
        after = after._replace(accepted=counts)
        problem, event_time = self.problem, None
        if problem.event is not None:
            after, ended, event_time = self._meet_event(
                problem.event, at, after, step, accepted, ended
            )
        if problem.times is not None:
            records = records_of_step(
                problem.times, _path(at, step), at.control.remaining, after.control.remaining,
                last=not self.rule.running(after.control), accepted=accepted, rows=at.rows,
                until=event_time, t1=problem.t_span[1],
            )  # fmt: skip
            after = after._replace(records=at.records + records)
        if not bool(ended.any()):
            return after
        if not at.finished:  # once more before any row is told an answer
            asked = self._look_at_rows(at, step.t)
            after = after._replace(evaluations=after.evaluations + asked)
        status = self.rule.status(step.judgement)
        if event_time is not None:
            status = torch.where(event_time.isnan(), status, int(SUCCESS)).to(status.dtype)
        return end_samples(after, ended, status, event_time, droppable=self._droppable)

    def _meet_event(
        self,
        event: Event,
        at: SolveState,
        after: SolveState,
        step: Step,
        accepted: Tensor,
        ended: Tensor,
    ) -> tuple[SolveState, Tensor, Tensor]:
        """End the samples whose event lies in the step just taken, at the event."""
        t1, taken = self.problem.t_span[1], accepted.view(-1)
        start, end = at.control.remaining, after.control.remaining
        now = event.value(at.event, seen_time(t1 - end, after.y), after.y)
        value = now if at.event_value is None else at.event_value
        event_time = torch.full(value.shape, torch.nan, dtype=start.dtype, device=start.device)
        path = _path(at, step)
        ends = value.detach(), now.detach()
        bracket = event.look(at.event, path, t1 - start, *ends, started=at.accepted is not None)
        crossed = bracket.crossed & taken
        after = after._replace(event_value=torch.where(taken, now, value))
        if not bool(crossed.any()):
            return after, ended, event_time
        found, when = event.locate(at.event, path, t1 - start, bracket._replace(crossed=crossed))
        columns = crossed.view(accepted.shape)
        after = after._replace(y=torch.where(columns, found, after.y))
        return after, ended | crossed, torch.where(crossed, when.view(-1), event_time)

    def _conclude_together(self, end: SolveState) -> Solution:
        """The solution where all samples took the same steps, unexamined."""
        times = self.problem.times
        ys = None if times is None else stack_records(times, end.records, self.problem.y0)
        stats = Stats(nfe=end.evaluations, accepted=end.tries)
        return Solution(end.y, ys, stats, all_succeeded(end.y), succeeded=True)

    def _conclude(self, end: SolveState) -> Solution:
        """The solution of samples that ended one by one."""
        finished, times = end.finished, self.problem.times
        order = torch.cat([part.rows for part in finished]).argsort()

        def gather(name: str) -> Tensor:
            return torch.cat([getattr(part, name) for part in finished])[order]

        def spread(name: str) -> Tensor:
            counts = [
                torch.full_like(part.rows, end.evaluations if value is None else value)
                for part in finished
                for value in (getattr(part, name),)
            ]
            return torch.cat(counts)[order]

        accepted = gather("accepted")
        stats = Stats(spread("evaluations"), accepted, spread("tries") - accepted)
        ys = None if times is None else stack_records(times, end.records, self.problem.y0)
        event_time: Any = None
        if self.problem.event is not None:
            event_time = gather("event_time").to(torch.promote_types(end.y.dtype, torch.float32))
        return Solution(gather("y"), ys, stats, gather("status"), event_time)


UNREADABLE = (
    "error control chooses its steps by the data, which torch.compile and function transforms "
    "such as vmap cannot follow: take a number of steps there"
)


def _path(at: SolveState, step: Step) -> Path:
    """The states within the step that was tried."""
    return at.bound.path(at.y, step.dt, step.first, step.result)
