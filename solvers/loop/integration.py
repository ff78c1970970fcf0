"""The integration loop: a method, a step-size rule and a gradient mode over a time span.

The loop is a pure function from one :class:`Progress` to the next, so that a gradient mode can
run a part of it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvers.fields import batch_parts as row_selection
from solvers.fields.base import VectorField
from solvers.gradients.modes import GradientMode
from solvers.loop.events import Event
from solvers.loop.finished_samples import dropping_held, is_sound, let_go, without_bad
from solvers.loop.progress import Progress, StepTaken
from solvers.loop.saved_times import Times, at_start, records_of_step, stack_records
from solvers.loop.step import Trial, time_of, try_compiled, try_step
from solvers.methods.base import Method
from solvers.methods.interpolation import Path
from solvers.solution import SUCCESS, Solution, Stats
from solvers.step_size.rules import StepSizeRule, Verdict


@dataclass(frozen=True)
class Integration:
    """One problem and how to solve it.

    Attributes:
        method, rule, gradient, steps: the solver's choices.
        field, span: the problem.
        times: where states are asked for, or None.
        event: what ends a sample early, or None.
        droppable: whether samples that ended may be left out of the evaluations: True, False, or
            None where that is to be found out.
        compiled: whether steps are tried by torch.compile.
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
    compiled: bool = False
    observe: Callable[[StepTaken], None] | None = None

    def run(self, y0: Tensor) -> Solution:
        """Solve, without throwing."""
        progress = self.march(self.method, self.field, y0)
        if progress.live and not progress.settled:
            return self._conclude_together(progress, y0)
        asked = dropping_held(self, progress, y0)
        if asked is None:
            return replace(self, droppable=False).run(y0)
        return self._conclude(progress, y0, asked)

    def march(self, method: Method, field: VectorField, y0: Tensor) -> Progress:
        """Where a solve of ``field`` stands once no sample has steps to take."""
        return self.gradient.run(self._advance, self._running, self._begin(method, field, y0))

    def _begin(self, method: Method, field: VectorField, y0: Tensor) -> Progress:
        bound = method.bind(field)
        start = self.rule.start(bound, self.span, y0, self.steps)
        progress = Progress(
            bound,
            y0,
            start.control,
            first=start.first,
            evaluations=start.evaluations,
            live=y0.shape[0],
        )
        if getattr(field, "autonomous", False):
            progress = progress._replace(time=time_of(self.span[0], 0.0, y0))
        if self.times is not None:
            progress = progress._replace(records=at_start(self.times, y0, start.control.remaining))
        if self.event is not None:
            t0 = torch.full_like(start.control.remaining, self.span[0])
            value = self.event.value(self.event.function, t0, y0)
            progress = progress._replace(event=self.event.function, event_value=value)
        return progress

    def _running(self, progress: Progress) -> bool:
        return progress.live > 0 and self.rule.running(progress.control)

    def _advance(self, progress: Progress) -> Progress:
        """One step, tried by all samples that are evaluated."""
        y, control = progress.y, progress.control
        trial = (try_compiled if self.compiled else try_step)(
            progress.bound, self.rule, self._end(y), y, control, progress.time, progress.first,
            self._needs_end,
        )  # fmt: skip
        attempt = trial.attempt
        moved = progress._replace(
            y=attempt.y,
            control=trial.control,
            first=attempt.last,
            evaluations=progress.evaluations + trial.evaluations,
            tries=progress.tries + 1,
        )
        if self.observe is not None:
            taken = None if trial.verdict is None else trial.verdict.accepted
            self.observe(StepTaken(trial.t, y, trial.dt, attempt.slopes, taken, progress.rows))
        verdict = trial.verdict
        if verdict is not None:
            if torch.is_grad_enabled() and not is_sound(trial):
                attempt, extra = without_bad(self, progress, trial)
                trial = trial._replace(attempt=attempt)
                moved = moved._replace(extra=progress.extra + extra)
            return self._settle(progress, moved, trial, verdict)
        if self.times is None:
            return moved
        records = records_of_step(
            self.times,
            _path(progress, trial),
            control.remaining,
            trial.control.remaining,
            last=not self.rule.running(trial.control),
        )
        return moved._replace(records=progress.records + records)

    def _end(self, y: Tensor) -> float | Tensor:
        """t1; a tensor for the compiler, which would take every number for another program."""
        if not self.compiled:
            return self.span[1]
        return torch.tensor(self.span[1], dtype=y.dtype, device=y.device)

    @property
    def _needs_end(self) -> bool:
        """Whether the states within a step need dy/dt at its end."""
        wanted = self.times is not None or self.event is not None
        return wanted and self.method.needs_end

    def _settle(
        self, before: Progress, after: Progress, trial: Trial, verdict: Verdict
    ) -> Progress:
        """Take the accepted steps, and let go of the samples that ended."""
        attempt, (accepted, ended) = trial.attempt, verdict
        if after.tries >= self.rule.most_tries:
            ended = torch.ones_like(ended)
        if before.done is not None:
            ended = ended & ~before.done
            accepted = accepted & ~before.done.view(accepted.shape)
        y = torch.where(accepted, attempt.y, before.y)
        if attempt.last is not None:
            after = after._replace(first=torch.where(accepted, attempt.last, trial.first))
        taken = accepted.view(-1)
        counts = taken.long() if before.accepted is None else before.accepted + taken
        after = after._replace(y=y, accepted=counts)
        event_time = None
        if self.times is not None or self.event is not None:
            path = _path(before, trial)
            if self.event is not None:
                after, ended, event_time = self._meet_event(
                    self.event, before, after, path, accepted, ended
                )
            if self.times is not None:
                records = records_of_step(
                    self.times, path, before.control.remaining, after.control.remaining,
                    last=not self.rule.running(after.control), accepted=accepted,
                    rows=before.rows, until=event_time, t1=self.span[1],
                )  # fmt: skip
                after = after._replace(records=before.records + records)
        if not bool(ended.any()):
            return after
        status = self.rule.status(after.control, verdict)
        if event_time is not None:
            status = torch.where(event_time.isnan(), status, int(SUCCESS)).to(status.dtype)
        return let_go(self, after, ended, status, event_time)

    def _meet_event(
        self,
        event: Event,
        before: Progress,
        after: Progress,
        path: Path,
        accepted: Tensor,
        ended: Tensor,
    ) -> tuple[Progress, Tensor, Tensor]:
        """End the samples whose event lies in the step just taken, at the event."""
        start, end = before.control.remaining, after.control.remaining
        now = event.value(before.event, self.span[1] - end, after.y)
        value = now if before.event_value is None else before.event_value
        event_time = torch.full_like(value, torch.nan, dtype=start.dtype)
        crossed = event.crossed(value.detach(), now.detach()) & accepted.view(-1)
        after = after._replace(event_value=torch.where(accepted.view(-1), now, value))
        if not bool(crossed.any()):
            return after, ended, event_time
        which = crossed.nonzero().view(-1)
        function = row_selection.select(before.event, which, after.y.ndim)
        values = value.detach()[which], now.detach()[which]
        if not row_selection.is_selectable(before.event):  # it may hold tensors of all samples
            function = row_selection.Among(before.event, which, after.y.detach())
        y, at = event.locate(function, path.select(which), (self.span[1] - start)[which], *values)
        after = after._replace(y=after.y.index_put((which,), y))
        return after, ended | crossed, event_time.index_put((which,), at.view(-1))

    def _conclude_together(self, progress: Progress, y0: Tensor) -> Solution:
        """The solution where all samples took the same steps, unexamined."""
        ys = None if self.times is None else stack_records(self.times, progress.records, y0)
        status = torch.full(y0.shape[:1], int(SUCCESS), dtype=torch.int8, device=y0.device)
        stats = Stats(nfe=progress.evaluations, accepted=self.steps)
        return Solution(progress.y, ys, stats, status)

    def _conclude(self, progress: Progress, y0: Tensor, asked: Tensor) -> Solution:
        """The solution of samples that ended one by one; ``asked`` evaluations are added."""
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

        nfe = asked + spread("evaluations")
        for rows, count in progress.extra:
            nfe[rows] += count
        accepted = gather("accepted")
        stats = Stats(nfe, accepted, spread("tries") - accepted)
        ys = None if self.times is None else stack_records(self.times, progress.records, y0)
        event_time = None if self.event is None else gather("event_time")
        return Solution(gather("y"), ys, stats, gather("status"), event_time)


def _path(before: Progress, trial: Trial) -> Path:
    """The states within the step that was tried."""
    return before.bound.path(before.y, trial.dt, trial.first, trial.attempt)
