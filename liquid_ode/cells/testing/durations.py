"""Checks of time: streams, irregular durations, and durations of zero."""

from __future__ import annotations

import torch
from torch import Tensor

import solvers
from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.ode import ODECell
from liquid_ode.cells.testing.samples import (
    HIDDEN,
    Make,
    Samples,
    made,
    named,
    one_by_one,
    with_solver,
)
from solvers import NativeSolver, Solver
from solvers.testing.kinds import has_budget, require, require_close, with_tolerance

STEPS = 5
# What is left of errors that are controlled to 1e-9 a step, or of an interpolant between them.
ACCURATE = 1e-6


def check_streaming(make: Make) -> None:
    """``cell.sequence`` gives what the cell gives a step at a time, or some steps at a time.

    With a duration of each sample, and without durations; from a state, and from rest.

    Raises:
        AssertionError: where it does not.
    """
    cell = made(make)
    samples = Samples(cell)
    x, start = samples.inputs(STEPS, HIDDEN), samples.states(HIDDEN)
    durations = samples.durations(STEPS, HIDDEN)
    for h0 in (start, None):
        for times in (durations, None):
            whole = cell.sequence(x, h0, times)
            with_times = "" if times is None else ", with durations"
            of_steps = [1.0] * STEPS if times is None else samples.of_forward(times).unbind()
            what = f"{named(cell)}.sequence should give what the cell gives{with_times}, "
            found = one_by_one(cell, x, h0, of_steps)
            require_close(whole, found, f"{what}one step at a time", 1e-9)
            h, parts = h0, []
            for rows in (slice(0, 2), slice(2, 3), slice(3, STEPS)):
                parts.append(cell.sequence(x[rows], h, None if times is None else times[rows]))
                h = parts[-1][-1]
            require_close(whole, torch.cat(parts), f"{what}some steps at a time", 1e-9)


def check_durations(make: Make, *, per_sample: bool = True) -> None:
    """A duration of zero leaves a state alone, and an ODE cell's state follows its field.

    A duration of zero, of all or of some of the samples, leaves their states as they are, to the
    bit (to rounding unless ``per_sample``), their gradients too, and every gradient finite. Of
    cells without an ODE no more can be asked.

    Under one input for durations d_1, ..., d_T, a solver with a number of steps gives exactly the
    solves of ``cell.field(x)`` over these spans one after the other; an accurate one gives the
    states of one solve of the field at the times d_1, d_1 + d_2, ..., however time is split.

    Args:
        make: see :func:`check_cell`.
        per_sample: likewise.

    Raises:
        AssertionError: where a state is another.
    """
    cell = made(make)
    samples = Samples(cell)
    x, h0 = samples.inputs(HIDDEN), samples.states(HIDDEN)
    durations = samples.durations(STEPS, HIDDEN)
    durations[1, 0] = durations[2, 1] = 0.0
    _check_zero(cell, samples, x, h0, 0.0 if per_sample else 1e-12)
    if not isinstance(cell, ODECell):
        return
    with torch.no_grad():
        if has_budget(cell.solver):
            _check_chain(cell, x, h0, durations)
            accurate = solvers.get("dormand_prince", rtol=1e-9, atol=1e-9)
        else:
            accurate = with_tolerance(cell.solver, 1e-9)
        tolerance = ACCURATE if per_sample else 100 * ACCURATE
        _check_long_solve(with_solver(cell, accurate), x, h0, durations, tolerance)


def _check_zero(cell: RecurrentCell, samples: Samples, x: Tensor, h0: Tensor, slack: float) -> None:
    times = samples.durations(HIDDEN)
    times[1::2] = 0.0
    zeros = torch.zeros_like(times)
    same = h0.unsqueeze(0)
    found = {
        "0.0": (cell(x, h0, duration=0.0), h0),
        "zero for each": (cell(x, h0, duration=samples.of_forward(zeros)), h0),
        "zero for some": (cell(x, h0, duration=samples.of_forward(times))[1::2], h0[1::2]),
        "zeros for a sequence": (cell.sequence(x.unsqueeze(0), h0, zeros.unsqueeze(0)), same),
        "zero, from rest": (cell(x, duration=0.0), torch.zeros_like(h0)),
    }
    for name, (state, expected) in found.items():
        off = float((state - expected).detach().abs().max())
        require(
            off <= slack,
            f"a duration of {name} should leave the state of {named(cell)} as it is, but changes "
            f"it by {off:.1e}, more than {slack:g}",
        )
    _check_gradient_at_zero(cell, samples, x, h0, times)


def _check_gradient_at_zero(
    cell: RecurrentCell, samples: Samples, x: Tensor, h0: Tensor, times: Tensor
) -> None:
    """Of states every other of which has a duration of zero."""
    given = [tensor.clone().requires_grad_() for tensor in (x, h0, times)]
    state = cell(*given[:2], duration=samples.of_forward(given[2]))
    weights = samples.states(HIDDEN)
    found = torch.autograd.grad((weights * state).sum(), given, materialize_grads=True)
    finite = all(bool(torch.isfinite(gradient).all()) for gradient in found)
    require(finite, f"gradients of {named(cell)} should be finite where durations are zero")
    what = f"with a duration of zero, the gradient of a state of {named(cell)} should be left alone"
    require_close(found[1][1::2], weights[1::2], what, 1e-12)
    require_close(found[0][1::2], 0 * x[1::2], f"{what}, and none reach the input", 1e-12)


def _check_chain(cell: ODECell, x: Tensor, h0: Tensor, durations: Tensor) -> None:
    """Every sample by itself, over its own spans."""
    states = cell.sequence(x.expand(STEPS, *x.shape), h0, durations)
    for row in range(h0.shape[0]):
        state, field = h0[row : row + 1], cell.field(x[row : row + 1])
        for step, duration in enumerate(durations[:, row].tolist()):
            if duration > 0:
                state = cell.solver.solve(field, state, (0.0, duration)).y
            what = (
                f"after durations {durations[: step + 1, row].tolist()}, a sample should have the "
                f"state of as many solves of {named(cell)}.field(x) over these spans"
            )
            require_close(states[step, row], state[0], what, 1e-9)


def _check_long_solve(
    cell: ODECell, x: Tensor, h0: Tensor, durations: Tensor, tolerance: float
) -> None:
    times = durations.cumsum(0)
    states = cell.sequence(x.expand(STEPS, *x.shape), h0, durations)
    expected = _at_times(cell.solver, cell, x, h0, times)
    what = (
        f"with an accurate solver, the states of {named(cell)} after durations of each sample "
        "should be those of one long solve of cell.field(x), split at the same times"
    )
    require_close(states, expected, what, tolerance)
    once = cell.sequence(x.unsqueeze(0), h0, times[-1:])
    what = f"with an accurate solver, {named(cell)} should not depend on how time is split"
    require_close(once[0], expected[-1], what, tolerance)


def _at_times(solver: Solver, cell: ODECell, x: Tensor, h0: Tensor, times: Tensor) -> Tensor:
    """The states ``(M, B, *state)`` of one solve at times ``(M, B)``."""
    if isinstance(solver, NativeSolver):
        span = (0.0, float(times.max()))
        return _ys(solver.solve(cell.field(x), h0, span, t_eval=times).ys)
    of_each = []
    for row in range(h0.shape[0]):
        one = slice(row, row + 1)
        own = times[:, row].tolist()
        solution = solver.solve(cell.field(x[one]), h0[one], (0.0, own[-1]), t_eval=own)
        of_each.append(_ys(solution.ys))
    return torch.cat(of_each, dim=1)


def _ys(ys: Tensor | None) -> Tensor:
    if ys is None:
        raise AssertionError("t_eval was given, but ys is None")
    return ys
