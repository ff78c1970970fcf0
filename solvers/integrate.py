"""The integration loop: a method, a step-size rule and a gradient mode over a time span.

The loop is a pure function from one :class:`Progress` to the next, so that a gradient mode can
run a part of it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solvers import rows as row_selection
from solvers.dense import Interpolant
from solvers.events import Event
from solvers.fields import VectorField
from solvers.finite import all_finite, finite_samples
from solvers.gradients import GradientMode
from solvers.methods import Attempt, BoundMethod, Increment, Method
from solvers.outputs import Record, Times, at_start, records_of_step, stack_records
from solvers.solution import SUCCESS, Solution, Stats
from solvers.step_size import StepSizeRule, Verdict


class Settled(NamedTuple):
    """Samples that have ended, ``n`` of them."""

    rows: Tensor
    y: Tensor
    status: Tensor
    accepted: Tensor
    tries: int
    evaluations: int | None
    """None while they are evaluated on, since the field cannot be asked for the others alone."""
    event_time: Tensor | None


class StepTaken(NamedTuple):
    """A step, told to an observer; ``accepted`` and ``rows`` are None where they are all."""

    t: Tensor
    y: Tensor
    dt: Increment
    slopes: tuple[Tensor, ...]
    accepted: Tensor | None
    rows: Tensor | None


class Progress(NamedTuple):
    """Where a solve stands. Tensors have one row for every sample that is evaluated."""

    bound: BoundMethod
    y: Tensor
    control: Any
    time: Tensor | None = None
    """The time for a field that does not depend on it."""
    first: Tensor | None = None
    """The first evaluation of the next step, where it is known already."""
    evaluations: int = 0
    live: int = 1
    """How many samples have not ended."""
    rows: Tensor | None = None
    """Their places in the batch; None where all are there."""
    done: Tensor | None = None
    """Which samples have ended but are evaluated with the others, bool ``(n,)``."""
    accepted: Tensor | None = None
    event: Any = None
    event_value: Tensor | None = None
    settled: tuple[Settled, ...] = ()
    records: tuple[Record, ...] = ()


@dataclass(frozen=True)
class Integration:
    """One problem and how to solve it.

    Attributes:
        method, rule, gradient, steps: the solver's choices.
        times: where states are asked for, or None.
        event: what ends a sample early, or None.
        droppable: whether samples that ended may be left out of the evaluations: True, False, or
            None where that is to be found out.
        observe: told of every step.
    """

    method: Method
    rule: StepSizeRule
    gradient: GradientMode
    steps: int
    field: VectorField
    span: tuple[float, float]
    times: Times | None = None
    event: Event | None = None
    droppable: bool | None = None
    observe: Callable[[StepTaken], None] | None = None

    def run(self, y0: Tensor) -> Solution:
        """Solve, without throwing."""
        progress = self.gradient.run(self._advance, self._running, self._begin(y0))
        if progress.live and not progress.settled:
            return self._conclude_together(progress, y0)
        if self.droppable is None and not self._held(progress, y0):
            return replace(self, droppable=False).run(y0)
        return self._conclude(progress, y0)

    def _begin(self, y0: Tensor) -> Progress:
        bound = self.method.bind(self.field)
        start = self.rule.start(bound, self.span, y0, self.steps)
        progress = Progress(
            bound, y0, start.control, None, start.first, start.evaluations, live=y0.shape[0]
        )
        if getattr(self.field, "autonomous", False):
            progress = progress._replace(time=self._time_of_field(progress))
        if self.times is not None:
            progress = progress._replace(records=at_start(self.times, y0))
        if self.event is not None:
            t0 = torch.full_like(start.control.remaining, self.span[0])
            value = self.event.value(self.event.function, t0, y0)
            progress = progress._replace(event=self.event.function, event_value=value)
        return progress

    def _running(self, progress: Progress) -> bool:
        return progress.live > 0 and self.rule.running(progress.control)

    def _time(self, remaining: Increment, y: Tensor) -> Tensor:
        """The present time as a tensor that broadcasts against the state."""
        if isinstance(remaining, Tensor):
            return self.span[1] - remaining
        dtype = torch.promote_types(y.dtype, torch.float32)
        return torch.full((), self.span[1] - remaining, dtype=dtype, device=y.device)

    def _advance(self, progress: Progress) -> Progress:
        """One step, tried by all samples that are evaluated."""
        bound, y = progress.bound, progress.y
        t = self._time_of_field(progress)
        first, evaluations = progress.first, progress.evaluations + self.method.stages - 1
        if first is None:
            first, evaluations = bound.first(t, y), evaluations + 1
        dt = self._propose(bound, progress.control, y, first)
        attempt = bound.step(t, y, dt, first)
        if attempt.last is None and self._needs_ends:
            last = bound.first(t + dt, attempt.y)
            attempt, evaluations = attempt._replace(last=last), evaluations + 1
        control, verdict = self.rule.judge(progress.control, dt, attempt, y, bound)
        moved = progress._replace(
            y=attempt.y, control=control, first=attempt.last, evaluations=evaluations
        )
        if self.observe is not None:
            taken = None if verdict is None else verdict.accepted
            self.observe(StepTaken(t, y, dt, attempt.slopes, taken, progress.rows))
        if verdict is None:
            if self.times is not None:
                path = self._interpolant(bound, y, attempt, dt, first)
                records = records_of_step(
                    self.times,
                    path,
                    progress.control.remaining,
                    control.remaining,
                    last=not self.rule.running(control),
                )
                moved = moved._replace(records=progress.records + records)
            return moved
        if torch.is_grad_enabled() and not all_finite(attempt.y.detach()):
            attempt = self._without_bad(progress, attempt, t, dt, first)
        return self._settle(progress, moved, attempt, verdict, dt, first)

    @property
    def _needs_ends(self) -> bool:
        """Whether dy/dt at the end of a step is needed, for cubic Hermite."""
        wanted = self.times is not None or self.event is not None
        return wanted and self.method.order > 1 and self.method.interpolant is None

    def _time_of_field(self, progress: Progress) -> Tensor:
        """The time that the field is called with; where it takes no notice, any time."""
        if progress.time is not None:
            return progress.time
        time = self._time(progress.control.remaining, progress.y)
        # Per-sample times have axes: in float32 they would promote what a bfloat16 field returns.
        return time.to(progress.y.dtype) if time.ndim else time

    def _propose(self, bound: BoundMethod, control: Any, y: Tensor, first: Tensor) -> Increment:
        """The rule's step, in the dtype of the state."""
        if not self.rule.needs_derivative:
            dt = self.rule.propose(control, None)
        else:
            with torch.no_grad():  # the size of a step carries no gradient
                dt = self.rule.propose(control, bound.derivative(y, first))
        return dt.to(y.dtype) if isinstance(dt, Tensor) else dt

    def _interpolant(
        self, bound: BoundMethod, y: Tensor, attempt: Attempt, dt: Increment, first: Tensor
    ) -> Interpolant:
        if self.method.interpolant is not None:
            return Interpolant(y, attempt.y, dt, None, attempt.slopes, self.method.interpolant)
        if attempt.last is None or self.method.order == 1:
            return Interpolant(y, attempt.y, dt)
        ends = bound.derivative(y, first), bound.derivative(attempt.y, attempt.last)
        return Interpolant(y, attempt.y, dt, ends)

    def _settle(
        self,
        before: Progress,
        after: Progress,
        attempt: Attempt,
        verdict: Verdict,
        dt: Increment,
        first: Tensor,
    ) -> Progress:
        """Take the accepted steps, and let go of the samples that ended."""
        accepted, ended, _ = verdict
        if before.done is not None:
            ended = ended & ~before.done
            accepted = accepted & ~before.done.view(accepted.shape)
        y = torch.where(accepted, attempt.y, before.y)
        if attempt.last is not None:
            after = after._replace(first=torch.where(accepted, attempt.last, first))
        taken = accepted.view(-1)
        counts = taken.long() if before.accepted is None else before.accepted + taken
        after = after._replace(y=y, accepted=counts)
        event_time = None
        if self.times is not None or self.event is not None:
            path = self._interpolant(before.bound, before.y, attempt, dt, first)
            if self.event is not None:
                after, ended, event_time = self._meet_event(before, after, path, accepted, ended)
            if self.times is not None:
                records = records_of_step(
                    self.times, path, before.control.remaining, after.control.remaining,
                    accepted=accepted, rows=before.rows, until=event_time, t1=self.span[1],
                )  # fmt: skip
                after = after._replace(records=before.records + records)
        if not bool(ended.any()):
            return after
        status = verdict.status()
        if event_time is not None:
            status = torch.where(event_time.isnan(), status, int(SUCCESS)).to(status.dtype)
        return self._let_go(after, ended, status, event_time)

    def _meet_event(
        self,
        before: Progress,
        after: Progress,
        path: Interpolant,
        accepted: Tensor,
        ended: Tensor,
    ) -> tuple[Progress, Tensor, Tensor]:
        """End the samples whose event lies in the step just taken, at the event."""
        event, value = self.event, before.event_value
        if event is None or value is None:
            raise RuntimeError("an event that was never started")
        now = event.value(before.event, self.span[1] - after.control.remaining, after.y)
        event_time = torch.full_like(value, torch.nan, dtype=before.control.remaining.dtype)
        crossed = event.crossed(value.detach(), now.detach()) & accepted.view(-1)
        after = after._replace(event_value=torch.where(accepted.view(-1), now, value))
        if not bool(crossed.any()):
            return after, ended, event_time
        which = crossed.nonzero().view(-1)
        function = row_selection.select(before.event, which, after.y.ndim)
        t = (self.span[1] - before.control.remaining)[which]
        ends = value.detach()[which], now.detach()[which]
        y, at = event.locate(function, path.select(which), t, *ends)
        after = after._replace(y=after.y.index_put((which,), y))
        return after, ended | crossed, event_time.index_put((which,), at.view(-1))

    def _let_go(
        self, progress: Progress, ended: Tensor, status: Tensor, event_time: Tensor | None
    ) -> Progress:
        """Settle the samples that ended, and leave them out of the evaluations if possible."""
        gone = ended.nonzero().view(-1)
        rows = progress.rows
        if rows is None:
            rows = torch.arange(ended.shape[0], device=ended.device)
        live = progress.live - gone.shape[0]
        counts = progress.accepted if progress.accepted is not None else status.long()
        settled = Settled(
            rows[gone],
            progress.y[gone],
            status[gone],
            counts[gone],
            getattr(progress.control, "tries", self.steps),
            progress.evaluations,
            None if event_time is None else event_time[gone],
        )
        if live == 0:
            return progress._replace(settled=(*progress.settled, settled), live=0)
        kept = (~ended if progress.done is None else ~(ended | progress.done)).nonzero().view(-1)
        few = self._drop(progress, rows, kept)
        if few is not None:
            return few._replace(settled=(*progress.settled, settled), live=live)
        done = ended if progress.done is None else ended | progress.done
        settled = settled._replace(evaluations=None)
        return progress._replace(settled=(*progress.settled, settled), live=live, done=done)

    def _drop(self, progress: Progress, rows: Tensor, kept: Tensor) -> Progress | None:
        """The progress of the samples ``kept`` alone; None where the field does not allow it."""
        if self.droppable is False or progress.done is not None:
            return None
        axes = progress.y.ndim
        field = row_selection.select(progress.bound.field, kept, axes)
        event = progress.event
        if event is not None:
            event = row_selection.select(event, kept, axes)
        few = Progress(
            self.method.bind(field),
            progress.y[kept],
            select_control(progress.control, kept),
            progress.time[kept]
            if progress.time is not None and progress.time.ndim
            else progress.time,
            None if progress.first is None else progress.first[kept],
            progress.evaluations,
            rows=rows[kept],
            accepted=None if progress.accepted is None else progress.accepted[kept],
            event=event,
            event_value=None if progress.event_value is None else progress.event_value[kept],
            records=progress.records,
        )
        if progress.rows is not None or row_selection.is_selectable(self.field):
            return few
        return self._probed(progress, few, kept)

    def _probed(self, progress: Progress, few: Progress, kept: Tensor) -> Progress | None:
        """``few``, if evaluating those samples alone gives what evaluating all of them gives."""
        with torch.no_grad():
            y = progress.y.detach()
            t = self._time(progress.control.remaining, y)
            part = t[kept] if t.ndim else t
            whole = progress.bound.first(t, y) if progress.first is None else progress.first
            if not row_selection.agrees(lambda: few.bound.first(part, y[kept]), whole, kept):
                return None
            if few.event is not None:
                values = self.event.value(progress.event, t, y) if self.event else whole
                if not row_selection.agrees(lambda: few.event(part, y[kept]), values, kept):
                    return None
        asked = 1 + (progress.first is None)
        return few._replace(evaluations=few.evaluations + asked)

    def _held(self, progress: Progress, y0: Tensor) -> bool:
        """Whether what a plain field gave for a part of the batch was right to the end."""
        if row_selection.is_selectable(self.field) or len(progress.settled) < 2:
            return True
        if any(settled.evaluations is None for settled in progress.settled):
            return True
        rows = torch.cat([settled.rows for settled in progress.settled])
        late = torch.cat([settled.rows for settled in progress.settled[1:]]).sort().values
        with torch.no_grad():
            y = torch.cat([settled.y for settled in progress.settled]).detach()[rows.argsort()]
            t = self._time(0.0, y)
            bound = self.method.bind(self.field)
            part = self.method.bind(row_selection.select(self.field, late, y0.ndim))
            return row_selection.agrees(lambda: part.first(t, y[late]), bound.first(t, y), late)

    def _without_bad(
        self, progress: Progress, attempt: Attempt, t: Tensor, dt: Increment, first: Tensor
    ) -> Attempt:
        """The attempt made again without the samples that left the finite numbers.

        Their step is thrown away, but its derivative is not finite either, and zero times
        infinity would reach the gradient of what they share with the others.
        """
        good = finite_samples(attempt.y.detach()).nonzero().view(-1)
        if good.shape[0] == 0 or self.droppable is False:
            return attempt
        if not row_selection.is_selectable(self.field) and progress.rows is None:
            return attempt
        y = progress.y
        field = row_selection.select(progress.bound.field, good, y.ndim)
        bound = self.method.bind(field)
        part = t[good] if t.ndim else t
        begun = bound.first(part, y[good]) if progress.first is None else first[good]
        step = dt[good] if isinstance(dt, Tensor) else dt
        again = bound.step(part, y[good], step, begun)
        if attempt.last is not None and again.last is None:
            again = again._replace(last=bound.first(part + step, again.y))

        def spread(values: Tensor) -> Tensor:
            return torch.zeros_like(y).index_put((good,), values)

        return Attempt(
            spread(again.y),
            None,
            None if again.last is None else spread(again.last),
            tuple(spread(slope) for slope in again.slopes),
        )

    def _conclude_together(self, progress: Progress, y0: Tensor) -> Solution:
        """The solution where all samples took the same steps, unexamined."""
        ys = None if self.times is None else stack_records(self.times, progress.records, y0)
        status = torch.full(y0.shape[:1], int(SUCCESS), dtype=torch.int8, device=y0.device)
        stats = Stats(nfe=progress.evaluations, accepted=self.steps)
        return Solution(progress.y, ys, stats, status)

    def _conclude(self, progress: Progress, y0: Tensor) -> Solution:
        settled = progress.settled
        order = torch.cat([part.rows for part in settled]).argsort()

        def gather(name: str) -> Tensor:
            return torch.cat([getattr(part, name) for part in settled])[order]

        def spread(name: str) -> Tensor:
            counts = [
                torch.full_like(part.rows, progress.evaluations if value is None else value)
                for part in settled
                for value in (getattr(part, name),)
            ]
            return torch.cat(counts)[order]

        accepted = gather("accepted")
        stats = Stats(spread("evaluations"), accepted, spread("tries") - accepted)
        ys = None if self.times is None else stack_records(self.times, progress.records, y0)
        event_time = None if self.event is None else gather("event_time")
        return Solution(gather("y"), ys, stats, gather("status"), event_time)


def select_control(control: Any, rows: Tensor) -> Any:
    """Some samples of a rule's control."""
    return type(control)(
        *(value[rows] if isinstance(value, Tensor) else value for value in control)
    )
