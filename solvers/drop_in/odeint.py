"""torchdiffeq's calls, by the solvers of this package: change the import, and no more.

What is which here, and what is different, is said in ``docs/api/solvers/torchdiffeq.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from solvers.drop_in.call import Call, State, along_time, mapped, numbers
from solvers.drop_in.choices import (
    Options,
    check_torchdiffeq_options,
    native,
    native_options,
    with_tolerances,
)
from solvers.drop_in.control import SharedControl, mixed_norm, of_adjoint
from solvers.drop_in.until_event import (
    REMARK,
    sign_changes,
    until_event,
    watching,
    with_event_gradient,
)
from solvers.gradients.adjoint import BacksolveAdjoint
from solvers.native import NativeSolver
from solvers.torchdiffeq_adapter import torchdiffeq_odeint

Function = Callable[[Tensor, Any], Any]
Settings = Mapping[str, Any]


def odeint(
    func: Function,
    y0: State,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Settings | None = None,
    event_fn: Function | None = None,
) -> Any:
    """Solve dy/dt = func(t, y), y(t[0]) = y0, as ``torchdiffeq.odeint`` does.

    The native equal is ``DormandPrince(step_size=PID(rtol, atol, shared=True)).solve``: one step
    for all of the state. Without ``shared=True`` each sample has its own.

    Args:
        func: ``func(t, y)`` of a time ``()`` and the whole state, of the structure of y0.
        y0: a tensor of any shape, or a tuple of tensors, floating point or complex. All of it is
            one system.
        t: times ``(T,)``, increasing or decreasing, the first that of y0. Gradients flow to them.
        rtol, atol: tolerances: numbers or tensors, or a tuple with one for each part of the state.
        method: a name of torchdiffeq's, or an error-controlled one of this package; None is
            ``dopri5``. That, ``bosh3`` and ``adaptive_heun`` are this package's own; the rest of
            torchdiffeq's are solved by torchdiffeq.
        options: of the method. For those that are solved here: first_step, min_step, max_step,
            max_num_steps, safety, ifactor, dfactor, norm, step_t, jump_t, dtype.
        event_fn: ``event_fn(t, y)``; the solve ends where one of its values first changes its
            sign. One that is 0 at the start is no event. t then has two entries, of which the
            second says only the direction.

    Returns:
        The states ``(T, ...)`` for every tensor of y0; with an event ``(event_t, states)`` with
        the time ``()`` and states ``(2, ...)``, at the start and the event.

    Raises:
        SolverError: where the solve fails, or no event comes within ``max_num_steps``.
        ValueError: where an argument is not as described.
    """
    solver = native(method)
    call = Call.of(func, y0, t)
    if solver is None:
        handed = {"rtol": rtol, "atol": atol, "method": method, "options": options}
        return _handed_over(call, False, event_fn, handed)
    asked = native_options(options)
    rule = _rule(call, asked, rtol, atol)
    solver = replace(solver, step_size=rule)
    if event_fn is not None:
        return until_event(solver, call, event_fn, asked)
    return _states(solver, call, asked)


def odeint_adjoint(
    func: Function,
    y0: State,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Settings | None = None,
    event_fn: Function | None = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_method: str | None = None,
    adjoint_options: Settings | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> Any:
    """:func:`odeint` with the gradient of :class:`solvers.BacksolveAdjoint`, of constant memory.

    Args:
        func, y0, t, rtol, atol, method, options, event_fn: as for :func:`odeint`.
        adjoint_rtol, adjoint_atol, adjoint_method, adjoint_options: of the way back; None for the
            same as forwards. Its norm is the largest of those of the state and its adjoint.
        adjoint_params: tensors that gradients flow to besides y0 and t; None for all that func is
            found to depend on. func may be any function.

    Raises:
        SolverError: as there.
        ValueError: as there; and in the backward pass, where it is to be differentiated again.
    """
    back_method = method if adjoint_method is None else adjoint_method
    if back_method != method and options is not None and adjoint_options is None:
        raise ValueError(
            "with an adjoint_method of its own the way back cannot take the options of the method: "
            "give adjoint_options as well"
        )
    if isinstance(adjoint_params, Tensor):
        adjoint_params = (adjoint_params,)
    params = None if adjoint_params is None else tuple(adjoint_params)
    solver, back = native(method), native(back_method)
    call = Call.of(func, y0, t)
    if solver is None or back is None:
        handed = {
            "rtol": rtol, "atol": atol, "method": method, "options": options,
            "adjoint_rtol": adjoint_rtol, "adjoint_atol": adjoint_atol,
            "adjoint_method": adjoint_method, "adjoint_options": adjoint_options,
            "adjoint_params": params,
        }  # fmt: skip
        return _handed_over(call, True, event_fn, handed)
    asked = native_options(options)
    if adjoint_options is None:
        back_asked = asked
    else:
        own = {name: value for name, value in adjoint_options.items() if name != "norm"}
        back_asked = native_options(own)
        _check_adjoint_norm(adjoint_options.get("norm"))
    back_rule = _rule(
        call,
        replace(back_asked, norm=asked.norm),
        rtol if adjoint_rtol is None else adjoint_rtol,
        atol if adjoint_atol is None else adjoint_atol,
    )
    back = replace(back, step_size=of_adjoint(back_rule, call.layout))
    gradient = BacksolveAdjoint(solver=back, to=params)
    rule = _rule(call, asked, rtol, atol)
    solver = replace(solver, step_size=rule, gradient=gradient)
    if event_fn is not None:
        return until_event(solver, call, event_fn, asked)
    return _states(solver, call, asked)


def odeint_event(
    func: Function,
    y0: State,
    t0: Tensor | float,
    *,
    event_fn: Function,
    reverse_time: bool = False,
    odeint_interface: Callable[..., Any] = odeint,
    **kwargs: Any,
) -> Any:
    """The time and state of an event, with their gradients.

    Args:
        func, y0, event_fn: as for :func:`odeint`.
        t0: the time of y0, ``()`` or ``(1,)``.
        reverse_time: whether the solve runs backwards from t0.
        odeint_interface: :func:`odeint`, :func:`odeint_adjoint`, or one that calls these.
        kwargs: what it takes besides.

    Returns:
        ``(event_t, states)`` as :func:`odeint`.
    """
    t0 = torch.as_tensor(t0).reshape(-1)
    if len(t0) != 1:
        raise ValueError(f"t0 must be one time, that of y0, not {t0}")
    if not t0.is_floating_point():
        t0 = t0.to(torch.get_default_dtype())
    t = torch.cat([t0, t0.detach() + (-1.0 if reverse_time else 1.0)])
    return odeint_interface(func, y0, t, event_fn=event_fn, **kwargs)


def _rule(call: Call, asked: Options, rtol: Any, atol: Any) -> SharedControl:
    rule = with_tolerances(asked.rule, rtol, atol, call.parts)
    norm = asked.norm or (None if call.layout is None else mixed_norm)
    return replace(rule, norm=norm, as_given=call.as_given)


def _states(solver: NativeSolver, call: Call, asked: Options) -> State:
    """The states at all times, ``(T, ...)``."""
    if len(call.t) == 1:
        return along_time(call.y0)
    times = numbers(call.t)
    watched = watching(solver, call, *call.t.detach()[[0, -1]].tolist())
    solution = watched.solve(
        call.func,
        call.y0,
        (times[0], times[-1]),
        t_eval=times[1:-1] or None,
        jump_times=asked.jumps,
        throw=False,
    ).throw(REMARK)
    if solution.ys is None:
        return along_time(call.y0, solution.y)
    ends = call.y0, solution.ys, solution.y
    return mapped(lambda y0, ys, y: torch.cat([y0.unsqueeze(0), ys, y.unsqueeze(0)]), *ends)


def _check_adjoint_norm(norm: Any) -> None:
    if norm is not None and norm != "seminorm":
        raise ValueError(
            "adjoint_options: the norm of the way back is that of the state and of its adjoint, "
            "since the gradients of the parameters are no part of its state: leave norm out, or "
            "give 'seminorm', which is the same"
        )


def _handed_over(
    call: Call, adjoint: bool, event_fn: Function | None, settings: dict[str, Any]
) -> Any:
    """The result of torchdiffeq itself."""
    check_torchdiffeq_options(settings["method"] or "dopri5", settings["options"])
    solve = torchdiffeq_odeint(adjoint=adjoint)
    if event_fn is None:
        return solve(call.original, call.y0, call.t, **settings)
    event_t, states = solve(call.original, call.y0, call.t, event_fn=event_fn, **settings)
    functions = sign_changes(event_fn, call)
    if torch.equal(event_t, call.t[0].to(event_t)):  # torchdiffeq ends at once at a value of 0
        return event_t, states
    event_t, state = with_event_gradient(
        call, functions[0], event_t, mapped(lambda y: y[-1], states)
    )
    return event_t, along_time(call.y0, state)
