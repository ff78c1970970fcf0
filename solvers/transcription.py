"""What a user asks as the loop solves it, and its solution as the user asked for it.

The loop knows one kind of problem: a real tensor, over a span of two numbers that runs forwards.
A state of another kind is packed into such a tensor (:class:`Layout`), and times of another kind
become part of the field (:class:`Clock`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from solvers.checks import check_flag, check_jumps, check_state, has_gradient
from solvers.fields.base import RelaxationField, SemilinearField, VectorField, fitted
from solvers.fields.structures import Layout, OfStructure, WithArguments
from solvers.loop.clock import Clock, as_span
from solvers.loop.events import Event, check_events
from solvers.loop.problem import Problem
from solvers.loop.saved_times import as_times
from solvers.solution import Solution


@dataclass(frozen=True, eq=False)
class Transcription:
    """A problem for the loop, and the way back from its solution.

    Attributes:
        problem: as the loop takes it.
        layout: of a state that is not one real tensor; else None.
        clock: of times that are not two numbers in order; else None.
    """

    problem: Problem
    layout: Layout | None
    clock: Clock | None

    @classmethod
    def of(
        cls,
        field: Any,
        y0: Any,
        t_span: Any,
        *,
        t_eval: Any = None,
        event: Event | Sequence[Event] | None = None,
        args: Any = (),
        dense: bool = False,
        jump_times: Any = None,
    ) -> Transcription:
        """Of the arguments of :meth:`solvers.Solver.solve`.

        Raises:
            ValueError: where one is not as described there.
        """
        if not callable(field):
            raise ValueError(f"field must be callable as field(t, y), not {type(field).__name__}")
        events = check_events(event)
        check_flag("dense", dense)
        if not isinstance(args, (tuple, list)):
            raise ValueError(f"args must be a tuple, for field(t, y, *args), not {args!r}")
        if args:
            field, events = _with_arguments(field, events, args)
        layout = None
        if not isinstance(y0, Tensor) or y0.is_complex():
            layout = Layout.of(y0)
            field, events = _of_structure(layout, field, events)
            y0 = layout.pack(y0)
        field = fitted(field, check_state(y0))
        span = as_span(t_span, y0)
        clock = None
        if isinstance(span, Clock):
            clock, span = span, (0.0, span.whole)
            field = clock.field(field, y0)
            events = _around(events, clock.function)
        times = None if t_eval is None else as_times(t_eval, y0, span, clock)
        jumps = _jumps(span, clock, jump_times)
        problem = Problem(field, y0, span, times, events, dense, jumps, layout=layout)
        if jumps and clock is not None:
            problem = replace(problem, reach=clock.reach)
        return cls(problem, layout, clock)

    def solution(self, found: Solution) -> Solution[Any]:
        """The solution of the problem as the user asked for it."""
        clock = self.clock
        if clock is not None and found.event_time is not None:
            events = tuple(
                each.mapped(
                    lambda states: states,
                    lambda times, samples: clock.of_samples(samples).time(times),
                )
                for each in found.events
            )
            found = replace(found, event_time=clock.time(found.event_time), events=events)
        if clock is not None and found.path is not None:
            found = replace(found, path=found.path.mapped(None, clock.time_by_row, clock.elapsed))
        return found if self.layout is None else found.mapped(self.layout.unpack)


Events = tuple[Event, ...]


def _around(events: Events, wrap: Callable[[Any], Any]) -> Events:
    return tuple(replace(event, function=wrap(event.function)) for event in events)


def _with_arguments(field: Any, events: Events, args: Any) -> tuple[Any, Events]:
    """Field and events with the arguments that all take after t and y."""

    def wrap(function: Any) -> WithArguments:
        return WithArguments(function, *args)

    relaxes = isinstance(field, RelaxationField)
    field = field.wrapped(wrap, field.rate) if relaxes else wrap(field)
    return field, _around(events, wrap)


def _of_structure(layout: Layout, field: Any, events: Events) -> tuple[VectorField, Events]:
    """Field and events for the packed state."""
    if isinstance(field, SemilinearField):
        rate = layout.spread("tau", field.rate)
        field = field.wrapped(lambda function: OfStructure(function, layout, True), rate)
    elif isinstance(field, RelaxationField):
        raise ValueError(
            f"a {type(field).__name__} takes one real tensor as its state, and y0 is none: write "
            "the field as a function field(t, y)"
        )
    else:
        field = OfStructure(field, layout, True)
    return field, _around(events, lambda function: OfStructure(function, layout, False))


def _jumps(span: tuple[float, float], clock: Clock | None, jump_times: Any) -> tuple[float, ...]:
    """The times of jumps, as the loop counts them."""
    if jump_times is None or clock is None:
        return check_jumps(span, jump_times)
    if clock.t0.ndim or has_gradient(clock.t0) or has_gradient(clock.speed):
        raise ValueError(
            "jump_times goes with a t_span of two numbers: with times of each sample, or with "
            "gradients to them, solve from jump to jump"
        )
    check_jumps(span, jump_times)  # for its messages
    found = clock.elapsed(torch.as_tensor(jump_times).to(clock.t0))
    return check_jumps(span, found)
