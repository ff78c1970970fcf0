"""A solve that ends at an event, of which nobody knows when it comes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from solvers.drop_in.call import Call, State, along_time, mapped, numbers
from solvers.drop_in.choices import Options
from solvers.drop_in.control import SharedControl
from solvers.fields.structures import leaves_of
from solvers.gradients.modes import Backpropagation
from solvers.loop.events import Event
from solvers.native import NativeSolver
from solvers.solution import MAX_STEPS, Solution, SolverError

EventFunction = Callable[[Tensor, State], Tensor]
REMARK = "max_steps and dt_min are called max_num_steps and min_step in the options of odeint."
"""What an error says besides."""
MOST_STEPS = 100_000
"""Unless the user says otherwise: a solve without an end should not run for ever."""


def watching(solver: NativeSolver, call: Call, start: float, end: float) -> NativeSolver:
    """The solver with a rule that calls the callbacks of func on the way."""
    watch = call.watch(start, end)
    rule = solver.step_size
    if watch is None or not isinstance(rule, SharedControl):
        return solver
    return replace(solver, step_size=replace(rule, watch=watch))


def until_event(solver: NativeSolver, call: Call, event_fn: Any, asked: Options) -> Any:
    """The time of the first event and the states ``(2, ...)`` at the start and there.

    The solve goes over spans that double until it comes.

    Raises:
        SolverError: where none comes within so many steps.
        ValueError: where the times are not two.
    """
    if len(call.t) != 2:
        raise ValueError(
            "with event_fn t has two entries, of which the second gives the direction, not "
            f"{len(call.t)}"
        )
    functions = sign_changes(event_fn, call)
    if isinstance(solver.gradient, Backpropagation):
        event_t, y, _ = _search(solver, call, functions, asked)
        return event_t.to(call.t.dtype), along_time(call.y0, y)
    with torch.no_grad():  # the adjoint is that of a solve between two times
        searching = replace(solver, gradient=Backpropagation())
        event_t, _, index = _search(searching, call, functions, asked)
    span = numbers(call.t)[0], event_t
    solution = solver.solve(call.func, call.y0, span, jump_times=asked.jumps, throw=False).throw(
        REMARK
    )
    event_t, y = with_event_gradient(call, functions[index], event_t, solution.y)
    return event_t.to(call.t.dtype), along_time(call.y0, y)


def sign_changes(event_fn: Any, call: Call) -> list[EventFunction]:
    """Functions of which the first to cross zero does so where the first value of event_fn does.

    One for all that have a sign at the start, and one for each that has none.
    """
    if not callable(event_fn):
        raise ValueError(f"event_fn must be a function(t, y), not {type(event_fn).__name__}")
    dtype = next(leaves_of(call.y0))[1].real.dtype
    with torch.no_grad():
        values = event_fn(call.t[0].detach().to(dtype), call.y0)
    if not isinstance(values, Tensor) or not values.is_floating_point() or not values.numel():
        raise ValueError(
            "event_fn must return a floating-point tensor, distances with a sign; it returned "
            f"{values.dtype if isinstance(values, Tensor) else type(values).__name__}"
        )
    signs = values.detach().sign().reshape(-1)
    signed = signs.nonzero().view(-1)

    def first_of_signed(t: Tensor, y: State) -> Tensor:
        return (event_fn(t, y).reshape(-1)[signed] * signs[signed]).min()

    def one(place: int) -> EventFunction:
        return lambda t, y: event_fn(t, y).reshape(-1)[place]

    functions = [one(place) for place in (signs == 0).nonzero().view(-1).tolist()]
    return ([first_of_signed] if len(signed) else []) + functions


def _search(
    solver: NativeSolver, call: Call, functions: Sequence[EventFunction], asked: Options
) -> tuple[Tensor, State, int]:
    """The time ``()`` of the event, the state there, and whose it is."""
    start, second = call.t.tolist()
    way = 1.0 if second > start else -1.0
    span = min(abs(second - start), 1.0)
    left = asked.rule.max_steps if asked.bounded else MOST_STEPS
    control: Any = solver.step_size
    events = [Event(function) for function in functions]
    t0, y = numbers(call.t)[0], call.y0
    while True:
        end = start + way * span
        rule = replace(control, max_steps=left)
        watched = watching(replace(solver, step_size=rule), call, start, end)
        solution = watched.solve(
            call.func, y, (t0, end), event=events, jump_times=asked.jumps, throw=False
        )
        left -= int(solution.stats.accepted) + int(solution.stats.rejected)
        when, which = solution.event_time, solution.event_index
        if when is not None and which is not None and bool(torch.isfinite(when).all()):
            return when.reshape(-1)[0], solution.y, int(which.reshape(-1)[0])
        _check_end(solution, end, left)
        y, start, t0, span = solution.y, end, end, 2 * span
        events = [replace(event, goes_on=True) for event in events]


def _check_end(solution: Solution, end: float, left: int) -> None:
    """Raise SolverError where the search cannot go on from the end of a span."""
    out_of_steps = bool((solution.status == MAX_STEPS).any()) or left < 1
    if out_of_steps or not math.isfinite(2 * end):
        raise SolverError(
            f"no event came by t = {end:g}, within max_num_steps: event_fn may never change its "
            "sign; or allow more steps by options={'max_num_steps': ...}",
            solution,
        )
    solution.throw(REMARK)


def with_event_gradient(
    call: Call, function: EventFunction, event_t: Tensor, y: State
) -> tuple[Tensor, State]:
    """The event of a solve to a known time, with the gradients of its time and its state.

    With g the function, dt = -(dg + g_y dy) / (g_t + g_y f), and dy = dy(at that time) + f dt.
    """
    if not torch.is_grad_enabled():
        return event_t, y
    t = event_t.detach().to(next(leaves_of(y))[1].real.dtype)
    still = mapped(lambda leaf: leaf.detach().requires_grad_(), y)
    there = [t.clone().requires_grad_(), *(leaf for _, leaf in leaves_of(still))]
    slope = mapped(lambda leaf: leaf.detach(), call.func(t, still))
    by_t, *by_y = torch.autograd.grad(
        function(there[0], still), there, allow_unused=True, materialize_grads=True
    )
    slopes = [leaf for _, leaf in leaves_of(slope)]
    rate = by_t + sum((g.conj() * f).real.sum() for g, f in zip(by_y, slopes, strict=True))
    value = function(t, y)
    when = t - (value - value.detach()) / rate
    return when, mapped(lambda leaf, f: leaf + f * (when - t).to(leaf.real.dtype), y, slope)
