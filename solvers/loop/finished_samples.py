"""Samples that have ended: kept as they are, and left out of the evaluations where possible.

A field that can be asked for a part of its batch is asked for the others from then on. Any other
is evaluated on the whole batch, where a sample that has ended stands in for one that has not: its
own state may lie where the field is not finite, and zero times infinity would reach the gradient of
what all samples share.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solvers.fields.batch_parts import select
from solvers.loop.crossings import Stops
from solvers.loop.solve_state import Finished, SolveState
from solvers.loop.step import Step
from solvers.methods.arithmetic import time_dtype
from solvers.methods.base import StepResult
from solvers.solution import NON_FINITE, SUCCESS, finite_samples


def end_samples(
    at: SolveState, ended: Tensor, status: Tensor, stops: Stops | None, *, droppable: bool
) -> SolveState:
    """Keep the samples that ended, ``ended`` bool ``(n,)``, and go on with the others.

    Args:
        at: where the solve stands.
        ended: which have; those that had ended before are not among them.
        status: of all ``(n,)``.
        stops: of all; None without events.
        droppable: whether the field can be asked for the others alone.
    """
    gone = ended.nonzero().view(-1)
    rows = at.rows
    if rows is None:
        rows = torch.arange(ended.shape[0], device=ended.device)
    counts = at.accepted if at.accepted is not None else torch.zeros_like(rows)
    finished = Finished(
        rows.index_select(0, gone),
        at.y.index_select(0, gone),
        status.index_select(0, gone),
        counts.index_select(0, gone),
        at.tries,
        at.evaluations if droppable else None,
        None if stops is None else Stops(stops.times[gone], stops.which[gone]),
    )
    at = at._replace(finished=(*at.finished, finished), live=at.live - gone.shape[0])
    if at.live == 0:
        return at
    if torch.is_grad_enabled() and bool((finished.status != SUCCESS).any()):
        at = at._replace(first=None)  # it may not be finite, nor its gradient
    if droppable:
        kept = (~ended).nonzero().view(-1)
        events = tuple(select(event, kept) for event in at.events)
        bound = at.bound.on(select(at.bound.field, kept))
        own = rows.index_select(0, kept)
        return at.at_rows(kept, bound=bound, events=events, rows=own)
    done = ended if at.done is None else ended | at.done
    return at.at_rows(_standing_in(~done), done=done)


def _standing_in(good: Tensor) -> Tensor:
    """Every sample's own index, but that of a good one for those that are not, ``(n,)``."""
    own = torch.arange(good.shape[0], device=good.device)
    return torch.where(good, own, good.nonzero()[0])


def end_where_field_is_not_finite(at: SolveState, first: Tensor, *, droppable: bool) -> SolveState:
    """End the samples whose first evaluation is not finite: no smaller step would help."""
    bad = ~finite_samples(first.detach())
    if at.done is not None:
        bad = bad & ~at.done
    if not bool(bad.any()):
        return at
    status = torch.full(bad.shape, int(NON_FINITE), dtype=torch.int8, device=bad.device)
    stops = Stops.none(status, time_dtype(status.device)) if at.events else None
    return end_samples(at, bad, status, stops, droppable=droppable)


def made_again(at: SolveState, step: Step, *, droppable: bool) -> Step:
    """The step made again without the samples that left the finite numbers in it.

    Theirs is thrown away, but its derivative is not finite either, and zero times infinity would
    reach the gradient of what they share with the others. A good sample stands in for them.
    """
    result, judged = step.result, step.judgement
    assert judged.accepted is not None
    good = step.finite_rows() | judged.accepted.view(-1)
    if not bool(good.any()):  # nobody moves
        last = None if result.last is None else result.last.detach()
        slopes = tuple(slope.detach() for slope in result.slopes)
        return step._replace(result=StepResult(at.y, None, last, slopes))
    rows = _standing_in(good)
    bound = at.bound.on(select(at.bound.field, rows) if droppable else at.bound.field)
    t = step.t[rows] if step.t.ndim else step.t
    dt = step.dt[rows] if isinstance(step.dt, Tensor) else step.dt
    again = bound.step(t, at.y[rows], dt, step.first[rows])
    evaluations = step.evaluations + bound.stages - 1
    if result.last is not None and again.last is None:
        again = again._replace(last=bound.first(t + dt, again.y))
        evaluations += 1
    return step._replace(result=again, evaluations=evaluations)
