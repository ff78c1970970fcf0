"""The gradient of events by the adjoint method.

The solve goes forwards without a graph. The way back then starts at each sample's own end, and
takes a gradient in at every crossing as it does at every asked time. What the time of a crossing
depends on comes by one step of Newton's method from it, with g the event's function:

    t = t* - (g(t*, y*) - its value) / (g_t + g_y f),    y = y* + f(t*, y*) (t - t*),

which changes no number and has the derivative of the implicit function theorem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solvers.fields.base import evaluate
from solvers.loop.events import Event
from solvers.loop.problem import Problem
from solvers.loop.saved_times import Times
from solvers.methods.arithmetic import time_dtype
from solvers.solution import Crossings, Solution


class Rows(NamedTuple):
    """Times of each sample and the states there; where one has no such time it is at its start.

    Attributes:
        times: ``(R, B)``.
        states: ``(R, B, ...)``.
        known: whether the sample came there, bool ``(R, B)``.
    """

    times: Tensor
    states: Tensor
    known: Tensor


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Where the gradient of a solve with events comes in.

    Attributes:
        problem: the problem.
        found: its solution, without gradients.
        asked: the times of ``t_eval``.
        crossings: of each event, a row for each sample's first crossing, second, ...
        end: one row, where each sample ended.
    """

    problem: Problem
    found: Solution
    asked: Rows
    crossings: tuple[Rows, ...]
    end: Rows

    @classmethod
    def of(cls, problem: Problem, found: Solution) -> Landmarks:
        y0, (t0, t1) = problem.y0.detach(), problem.t_span
        ends = found.event_time
        assert ends is not None
        ends = torch.where(ends.isnan(), t1, ends.to(time_dtype(y0.device)))
        known = torch.ones_like(ends, dtype=torch.bool)
        end = Rows(ends[None], found.y[None], known[None])
        start = torch.full_like(ends, t0)[None], y0[None], torch.zeros_like(known)[None]
        asked = Rows(*(value[:0] for value in start))
        if problem.times is not None and found.ys is not None:
            left = problem.times.like(ends, None).detach()
            known = ~found.ys.isnan().flatten(2).any(2)
            asked = _where_known(Rows((t1 - left).expand_as(known), found.ys, known), start)
        crossings = tuple(_table(each, start) for each in found.events)
        return cls(problem, found, asked, crossings, end)

    def merged(self) -> tuple[Times, Tensor, Tensor]:
        """All of them in order, as times and states ``(R, B, ...)``; and how to undo that."""
        parts = [self.asked, *self.crossings, self.end]
        times, states = (torch.cat([part[i] for part in parts]) for i in (0, 1))
        order = times.argsort(dim=0, stable=True)
        t0, t1 = self.problem.t_span
        left = t1 - times.gather(0, order)
        return Times((), left, t1 - t0), gathered(states, order), order.argsort(0)

    def solution(self, states: Tensor) -> Solution:
        """The solution with the gradients of the states, ``(R, B, ...)`` in the order here."""
        sizes = [len(rows.times) for rows in (self.asked, *self.crossings, self.end)]
        asked, *crossed, ends = states.split(sizes)
        corrected = [
            [self._corrected(rows.times[j], own[j], [(event, rows.known[j])]) for j in range(size)]
            for event, rows, own, size in zip(
                self.problem.events, self.crossings, crossed, sizes[1:-1], strict=True
            )
        ]
        which = self.found.event_index
        assert which is not None
        stopped = [
            (event, which == number)
            for number, event in enumerate(self.problem.events)
            if event.terminal
        ]
        when, y = self._corrected(self.end.times[0], ends[0], stopped)
        dtype = torch.promote_types(y.dtype, torch.float32)
        ys = self.found.ys
        if ys is not None:
            ys = torch.where(_columns(self.asked.known, ys), self._moved(asked), torch.nan)
        pairs = zip(self.found.events, corrected, strict=True)
        extra = 1 + sum(map(len, corrected))  # slopes
        return replace(
            self.found,
            y=y,
            ys=ys,
            event_time=torch.where(which < 0, torch.nan, when).to(dtype),
            events=tuple(_as_crossings(each, rows, dtype) for each, rows in pairs),
            stats=replace(self.found.stats, nfe=self.found.stats.nfe + extra),
        )

    def _slope(self, t: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            slope: Tensor = evaluate(self.problem.field, _columns(t, y).to(y.dtype), y.detach())
        return slope

    def _corrected(
        self, t: Tensor, y: Tensor, met: Sequence[tuple[Event, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Times and states of the samples ``(B,)`` that met these events, with their gradients."""
        change, slope = torch.zeros_like(t), self._slope(t, y)
        for event, here in met:
            function: Any = event.function
            value = event.value(function, _columns(t, y).to(y.dtype), y)
            step = torch.zeros_like(t).requires_grad_()
            columns = _columns(step, y)
            later = (_columns(t, y) + columns).to(y.dtype)
            ahead = event.value(function, later, y.detach() + (columns * slope).to(y.dtype))
            (rate,) = torch.autograd.grad(ahead.sum(), step)
            own = (value.detach() - value) / torch.where(here, rate, 1.0)
            change = change + torch.where(here, own, 0.0)
        return t + change, y + (slope * _columns(change, y)).to(y.dtype)

    def _moved(self, states: Tensor) -> Tensor:
        """The states at ``t_eval``, with the gradients of these times."""
        times = self.problem.times
        if times is None or times.of_each is None or not times.of_each.requires_grad:
            return states
        left = times.of_each.to(self.asked.times)
        moved = (left.detach() - left).expand_as(self.asked.times)
        slopes = torch.stack(
            [self._slope(*pair) for pair in zip(self.asked.times, states, strict=True)]
        )
        return states + (slopes * _columns(moved, states)).to(states.dtype)


def _columns(value: Tensor, like: Tensor) -> Tensor:
    return value.view(*value.shape, *[1] * (like.ndim - value.ndim))


def gathered(states: Tensor, order: Tensor) -> Tensor:
    return states.gather(0, _columns(order, states).expand_as(states))


def _where_known(rows: Rows, start: tuple[Tensor, Tensor, Tensor]) -> Rows:
    times = torch.where(rows.known, rows.times, start[0])
    states = torch.where(_columns(rows.known, rows.states), rows.states, start[1])
    return Rows(times, states, rows.known)


def _ordinals(found: Crossings, samples: int) -> Tensor:
    """Of each crossing, the how many-th of its sample it is, from 0; they are in order."""
    counts = found.samples.bincount(minlength=samples)
    begin = counts.cumsum(0) - counts
    return torch.arange(len(found.samples), device=counts.device) - begin[found.samples]


def _table(found: Crossings, start: tuple[Tensor, Tensor, Tensor]) -> Rows:
    number = _ordinals(found, start[0].shape[1])
    size = int(number.max()) + 1 if len(number) else 0
    place = number, found.samples
    times, states, known = (value.repeat(size, *[1] * (value.ndim - 1)) for value in start)
    times = times.index_put(place, found.times.to(times.dtype))
    states = states.index_put(place, found.states)
    return Rows(times, states, known.index_put(place, torch.ones_like(number, dtype=torch.bool)))


def _as_crossings(
    found: Crossings, rows: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype
) -> Crossings:
    if not rows:
        return found
    times, states = (torch.stack(each) for each in zip(*rows, strict=True))
    place = _ordinals(found, times.shape[1]), found.samples
    return Crossings(found.samples, times[place].to(dtype), states[place])
