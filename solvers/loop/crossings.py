"""What the events of a problem come to: in one step, and over a solve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solvers.loop.events import Event
from solvers.methods.interpolation import Path
from solvers.solution import Crossings


class Crossed(NamedTuple):
    """Some samples' crossings of one event, ``k`` of them, with their places in the batch."""

    event: int
    rows: Tensor
    times: Tensor
    states: Tensor


class Stops(NamedTuple):
    """Which samples end at an event in this step.

    Attributes:
        times: of the events ``(n,)``, NaN where there is none.
        which: of the events in the problem's, int64 ``(n,)``, -1 where there is none.
    """

    times: Tensor
    which: Tensor

    @staticmethod
    def none(samples: Tensor, dtype: torch.dtype) -> Stops:
        """No sample ends, of as many as ``samples (n,)``."""
        times = torch.full(samples.shape, torch.nan, dtype=dtype, device=samples.device)
        return Stops(times, torch.full_like(times, -1, dtype=torch.int64))


class StepTaken(NamedTuple):
    """A step of all samples that are evaluated.

    Attributes:
        path: the states within it.
        t: where it starts ``(n, 1, ..., 1)``.
        taken: which samples take it, bool ``(n,)``.
        started: which have taken one before.
        rows: the samples' places in the batch.
    """

    path: Path
    t: Tensor
    taken: Tensor
    started: Tensor
    rows: Tensor


def meet_events(
    events: Sequence[Event],
    functions: Sequence[Any],
    step: StepTaken,
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    y: Tensor,
) -> tuple[Tensor, Stops, tuple[Crossed, ...]]:
    """The crossings in a step, up to the first of a terminal event of each sample.

    Args:
        events: what is looked for.
        functions: of the events, for the samples of the step.
        step: the step.
        before, after: the functions' values at both ends of the step.
        y: the states at its end.

    Returns:
        The states ``(n, ...)`` at the end or at the event that ends the sample; which do; and all
        crossings up to there.
    """
    path, t, taken, started, rows = step
    with torch.no_grad():
        searched = path.collected()
    stops = Stops.none(taken, t.dtype)
    until, index = torch.full_like(stops.times, torch.inf), stops.which
    found = []
    for number, (event, function) in enumerate(zip(events, functions, strict=True)):
        ends = before[number].detach(), after[number].detach()
        for bracket in event.look(function, searched, t, *ends, taken=taken, started=started):
            theta = event.root(function, searched, t, bracket)
            found.append((number, theta, bracket.crossed))
            if event.terminal:
                first = bracket.crossed & (theta < until)
                until = torch.where(first, theta.to(until.dtype), until)
                index = torch.where(first, number, index)
    crossed = []
    times = stops.times
    for number, theta, there in found:
        # Those at the same time are recorded too, as far as rounding can tell.
        kept = there & (theta <= until + 16 * torch.finfo(theta.dtype).eps)
        if not bool(kept.any()):
            continue
        state, when = events[number].locate(functions[number], path, t, theta, kept)
        when = when.view(-1)
        crossed.append(Crossed(number, rows[kept], when[kept], state[kept]))
        if events[number].terminal:
            ended = kept & (index == number)
            y = torch.where(ended.view(t.shape), state, y)
            times = torch.where(ended, when, times)
    return y, Stops(times, index), tuple(crossed)


def gather_crossings(
    events: Sequence[Event], found: Sequence[Crossed], y: Tensor
) -> tuple[Crossings, ...]:
    """What was found of each event, in the order of samples and times.

    Args:
        events: what was looked for.
        found: the crossings of all steps.
        y: states like these, ``(B, ...)``.
    """
    dtype = torch.promote_types(y.dtype, torch.float32)
    gathered = []
    for number in range(len(events)):
        parts = [part for part in found if part.event == number]
        samples = torch.cat([y.new_empty(0, dtype=torch.int64), *(part.rows for part in parts)])
        times = torch.cat([y.new_empty(0, dtype=dtype), *(part.times.to(dtype) for part in parts)])
        states = torch.cat([y.new_empty(0, *y.shape[1:]), *(part.states for part in parts)])
        order = times.detach().argsort(stable=True)
        order = order[samples[order].argsort(stable=True)]
        gathered.append(Crossings(samples[order], times[order], states[order]))
    return tuple(gathered)
