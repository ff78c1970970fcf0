"""Letting go of samples that have ended, so that they are not evaluated any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from solvers.fields import batch_parts as row_selection
from solvers.loop.progress import Progress, Settled, select_control
from solvers.loop.step import Trial, time_for_field, time_of
from solvers.methods.base import Attempt
from solvers.transforms import all_finite, finite_samples

if TYPE_CHECKING:
    from solvers.loop.integration import Integration


def let_go(
    integration: Integration,
    progress: Progress,
    ended: Tensor,
    status: Tensor,
    event_time: Tensor | None,
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
        progress.tries,
        progress.evaluations,
        None if event_time is None else event_time[gone],
    )
    if live == 0:
        return progress._replace(settled=(*progress.settled, settled), live=0)
    done = ended if progress.done is None else ended | progress.done
    few = _drop(integration, progress, rows, (~done).nonzero().view(-1))
    if few is not None:
        return few._replace(settled=(*progress.settled, settled), live=live)
    settled = settled._replace(evaluations=None)
    return progress._replace(settled=(*progress.settled, settled), live=live, done=done)


def _drop(
    integration: Integration, progress: Progress, rows: Tensor, kept: Tensor
) -> Progress | None:
    """The progress of the samples ``kept`` alone; None where the field does not allow it."""
    if integration.droppable is False or progress.done is not None:
        return None
    axes = progress.y.ndim
    field = row_selection.select(progress.bound.field, kept, axes)
    event = progress.event
    if event is not None:
        event = row_selection.select(event, kept, axes)

    def part(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[kept]

    few = progress._replace(
        bound=integration.method.bind(field),
        y=progress.y[kept],
        control=select_control(progress.control, kept),
        first=part(progress.first),
        rows=rows[kept],
        accepted=part(progress.accepted),
        event=event,
        event_value=part(progress.event_value),
    )
    if progress.rows is not None:
        return few
    extra = few.extra
    if not row_selection.is_selectable(integration.field):
        asked = _probe(integration, progress, few, kept)
        if asked is None:
            return None
        extra = (*extra, (rows, asked - 1), (rows[kept], 1))
    if not _event_agrees(integration, progress, few, kept):
        return None
    return few._replace(extra=extra)


def _probe(integration: Integration, progress: Progress, few: Progress, kept: Tensor) -> int | None:
    """How many evaluations it took to find that those samples alone give what all of them give.

    None where they do not.
    """
    with torch.no_grad():
        y = progress.y.detach()
        t = time_for_field(integration.span[1], progress.control.remaining, y)
        part = t[kept] if t.ndim else t
        whole = progress.bound.first(t, y) if progress.first is None else progress.first
        if not row_selection.agrees(lambda: few.bound.first(part, y[kept]), whole, kept):
            return None
    return 1 + (progress.first is None)


def _event_agrees(
    integration: Integration, progress: Progress, few: Progress, kept: Tensor
) -> bool:
    """Whether the event's function may be asked for those samples alone."""
    event = integration.event
    if event is None or row_selection.is_selectable(event.function):
        return True
    with torch.no_grad():
        y = progress.y.detach()
        t = time_of(integration.span[1], progress.control.remaining, y)
        values = event.value(progress.event, t, y)
        return row_selection.agrees(lambda: few.event(t[kept], y[kept]), values, kept)


def dropping_held(integration: Integration, progress: Progress, y0: Tensor) -> Tensor | None:
    """Whether what a plain field gave for a part of the batch was right to the end.

    The evaluations that it took to find out, of each sample ``(B,)``; None where it was not.
    """
    settled = progress.settled
    asked = torch.zeros(y0.shape[:1], dtype=torch.int64, device=y0.device)
    if row_selection.is_selectable(integration.field) or len(settled) < 2:
        return asked
    if any(part.evaluations is None for part in settled):
        return asked
    rows = torch.cat([part.rows for part in settled])
    late = torch.cat([part.rows for part in settled[1:]]).sort().values
    with torch.no_grad():
        y = torch.cat([part.y for part in settled]).detach()[rows.argsort()]
        t = time_for_field(integration.span[1], 0.0, y)
        whole = integration.method.bind(integration.field)
        few = integration.method.bind(row_selection.select(integration.field, late, y0.ndim))
        if not row_selection.agrees(lambda: few.first(t, y[late]), whole.first(t, y), late):
            return None
    asked += 1
    asked[late] += 1
    return asked


def is_sound(trial: Trial) -> bool:
    """Whether nothing of the trial, not even what is thrown away, left the finite numbers."""
    return all(all_finite(values) for values in _values_of(trial))


def _values_of(trial: Trial) -> list[Tensor]:
    attempt = trial.attempt
    values = (attempt.y, attempt.last, trial.first, attempt.error, *attempt.slopes)
    return [value.detach() for value in values if value is not None]


def without_bad(
    integration: Integration, progress: Progress, trial: Trial
) -> tuple[Attempt, tuple[tuple[Tensor, int], ...]]:
    """The attempt made again without the samples that left the finite numbers.

    Their step is thrown away, but its derivative is not finite either, and zero times infinity
    would reach the gradient of what they share with the others. With it come the evaluations
    that this took, as in ``Progress.extra``.
    """
    attempt, y, t, dt = trial.attempt, progress.y, trial.t, trial.dt
    sound = torch.stack([finite_samples(value) for value in _values_of(trial)]).all(0)
    good = sound.nonzero().view(-1)
    if good.shape[0] == 0:  # nobody moves
        return _thrown_away(attempt, y), ()
    if integration.droppable is False:
        return attempt, ()
    bound = integration.method.bind(row_selection.select(progress.bound.field, good, y.ndim))
    part = t[good] if t.ndim else t
    asked = integration.method.stages
    if not row_selection.is_selectable(integration.field) and progress.rows is None:
        with torch.no_grad():
            whole = trial.first.detach()
            if not row_selection.agrees(lambda: bound.first(part, y[good]), whole, good):
                return attempt, ()
        asked += 1
    step = dt[good] if isinstance(dt, Tensor) else dt
    again = bound.step(part, y[good], step, bound.first(part, y[good]))
    if attempt.last is not None and again.last is None:
        again, asked = again._replace(last=bound.first(part + step, again.y)), asked + 1

    def spread(values: Tensor) -> Tensor:
        return torch.zeros_like(y).index_put((good,), values)

    made = Attempt(
        spread(again.y),
        None,
        None if again.last is None else spread(again.last),
        tuple(spread(slope) for slope in again.slopes),
    )
    return made, (((good if progress.rows is None else progress.rows[good]), asked),)


def _thrown_away(attempt: Attempt, y: Tensor) -> Attempt:
    """An attempt that nobody takes, without its graph."""
    last = None if attempt.last is None else attempt.last.detach()
    return Attempt(y, None, last, tuple(slope.detach() for slope in attempt.slopes))
