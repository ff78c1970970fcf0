"""Checks of what a cell takes and gives back: shapes, dtypes, bad input, copies."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.testing.samples import (
    HIDDEN,
    INPUTS,
    Make,
    Samples,
    is_exact,
    made,
    named,
    parameters_of,
)
from solvers.testing.kinds import require, require_close


def check_shapes(make: Make) -> None:
    """States have the shape of the batch and of a state, for any batch axes, also none.

    The cell starts at rest, with zeros, where no state is given; a duration is 1 where none is.

    Raises:
        AssertionError: where a shape or such a default is another.
    """
    cell = made(make)
    samples = Samples(cell)
    for lead in ((), (1,), (4,), (0,), (2, 3), (2, 1, 3)):
        x, h0 = samples.inputs(*lead), samples.states(*lead)
        times = samples.of_forward(samples.durations(*lead))
        what = f"for x of shape {tuple(x.shape)}, {named(cell)} should "
        for state in (cell(x), cell(x, h0), cell(x, duration=times)):
            _require_shape(state, h0, what)
        for duration in (0.5, torch.tensor(0.5)):
            _require_shape(cell(x, h0, duration=duration), h0, what)
        require_close(cell(x), cell(x, h0 * 0, duration=1.0), f"{what}start at zero for 1", 1e-12)
    for lead in ((1, 1), (3, 2), (2, HIDDEN), (3, 0)):
        x, h0, durations = samples.inputs(*lead), samples.states(*lead), samples.durations(*lead)
        what = f"for a sequence of shape {tuple(x.shape)}, {named(cell)} should "
        given = (cell.sequence(x), cell.sequence(x, h0[0]), cell.sequence(x, None, durations))
        for states in given:
            _require_shape(states, h0, what)
        plain = cell.sequence(x, h0[0] * 0, torch.ones_like(durations))
        require_close(given[0], plain, f"{what}start at zero for 1", 1e-12)


def _require_shape(found: Any, like: Tensor, what: str) -> None:
    if not isinstance(found, Tensor):
        raise AssertionError(f"{what}give a tensor, not {type(found).__name__}")
    shapes = tuple(found.shape), tuple(like.shape)
    require(shapes[0] == shapes[1], f"{what}give states of shape {shapes[1]}, not {shapes[0]}")
    require(found.dtype == like.dtype, f"{what}give {like.dtype}, not {found.dtype}")


def check_dtypes(make: Make) -> None:
    """States have the dtype of the parameters; under autocast to bfloat16 they stay close.

    There, a state may be given back to the cell, and parameters get finite gradients of their own
    dtype.

    Raises:
        AssertionError: where a dtype is another, or a number is too far off.
    """
    exact = None
    for dtype in (torch.float64, torch.float32):
        cell = made(make, dtype=dtype)
        samples = Samples(cell)
        x, h0, durations = samples.inputs(3, 2), samples.states(2), samples.durations(3, 2)
        what = f"with parameters of {dtype}, {named(cell)} should "
        states = cell.sequence(x, h0, durations)
        of_one = cell(x[0], h0, duration=samples.of_forward(durations[0]))
        for found in (states, of_one):
            require(found.dtype == dtype, f"{what}give states of {dtype}, not {found.dtype}")
        exact = states.double() if exact is None else exact
        slack = 1e-4 if is_exact(cell) else 1e-2
        require_close(states.double(), exact, f"{what}be as accurate as the dtype", slack)
    what = f"under autocast to bfloat16, {named(cell)} should "
    with torch.autocast("cpu", torch.bfloat16):
        first = cell.sequence(x[:1], h0, durations[:1])[0]
        rest = cell.sequence(x[1:], first, durations[1:])
    rounded = torch.cat([first.unsqueeze(0), rest]).float()
    require_close(rounded, states, f"{what}stay close to float32", 0.1)
    rounded.square().sum().backward()
    for name, parameter in parameters_of(cell).items():
        if parameter.grad is None:
            raise AssertionError(f"{what}give {name} a gradient")
        fits = parameter.grad.dtype == dtype and bool(torch.isfinite(parameter.grad).all())
        require(fits, f"{what}give {name} a finite gradient of {dtype}, not {parameter.grad}")


def check_bad_input(make: Make) -> None:
    """What a cell cannot work with raises a ValueError that names the argument.

    Another shape, dtype or device, a number that is not finite, a time that runs backwards.

    Raises:
        AssertionError: where it does not.
    """
    cell = made(make)
    samples = Samples(cell)
    x, h0, ones = samples.inputs(2, 3), samples.states(3), torch.ones(2, 3)

    def refuses(words: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        _require_refusal(cell, words, call, *arguments, **named)

    axis = x.ndim - cell.feature_axes
    for features in (INPUTS + 1, INPUTS - 1):
        wrong = x.narrow(axis, 0, 1).repeat_interleave(features, axis)
        refuses("x must have shape", cell, wrong[0])
        refuses("x must have shape", cell.sequence, wrong)
    refuses("x must have shape", cell.sequence, x[0, 0])
    refuses("x must have shape", cell.sequence, x[:0])
    refuses("x must have shape", cell.sequence, x.unsqueeze(0))
    more = torch.cat([h0, h0.narrow(1, 0, 1)], dim=1)  # another feature
    for wrong in (h0[:2], h0[:1], h0[0], h0.unsqueeze(0), more):
        refuses("h0 must have shape", cell, x[0], wrong)
        refuses("h0 must have shape", cell.sequence, x, wrong)
    for bad in (-1.0, math.nan, math.inf):
        refuses("duration", cell, x[0], duration=bad)
        refuses("duration", cell, x[0], duration=torch.tensor(bad))
        times = ones.clone()
        times[1, 2] = bad
        refuses("duration", cell, x[0], duration=samples.of_forward(times[1]))
        refuses("duration", cell.sequence, x, None, times)
    # A duration of each sample without axes for its features, and for other samples.
    for times in (ones[0], samples.of_forward(ones[0, :2]), samples.of_forward(ones)):
        refuses("duration must", cell, x[0], duration=times)
    for times in (ones.t(), ones[:1], ones[0], samples.of_forward(ones)):
        refuses("durations must", cell.sequence, x, None, times)
    _require_refusals_of_values(cell, x, h0)


def _require_refusals_of_values(cell: RecurrentCell, x: Tensor, h0: Tensor) -> None:
    """Of dtypes, devices, and numbers that are not finite."""

    def refuses(words: str, call: Callable[..., Any], *arguments: Any) -> None:
        _require_refusal(cell, words, call, *arguments)

    refuses("x is torch.float32, the weights", cell, x[0].float())
    refuses("x is torch.float32, the weights", cell.sequence, x.float())
    refuses("x must be floating point", cell, x[0].long())
    refuses("h0 is torch.float32, x is torch.float64", cell, x[0], h0.float())
    refuses("x is on meta, the weights", cell, x[0].to("meta"))
    for bad in (math.nan, math.inf):
        wrong = x.clone()
        wrong[1, 2] = bad
        refuses(f"x must be finite, but is {bad} in sample 2", cell, wrong[1])
        refuses(f"x must be finite, but is {bad} in step 1, sample 2", cell.sequence, wrong)
    wrong = h0.clone()
    wrong[1] = math.nan
    refuses("h0 must be finite, but is nan in sample 1", cell, x[0], wrong)


def _require_refusal(
    cell: RecurrentCell, words: str, call: Callable[..., Any], *arguments: Any, **named: Any
) -> None:
    name = type(cell).__name__
    shapes = [tuple(given.shape) for given in arguments if isinstance(given, Tensor)]
    of_call = f"of {shapes}, {named}" if named else f"of {shapes}"
    try:
        call(*arguments, **named)
    except ValueError as error:
        require(
            words in str(error),
            f"{name} should say {words!r} in its ValueError for arguments {of_call}, but it "
            f"says: {error}",
        )
    except Exception as error:
        raise AssertionError(
            f"{name} should raise a ValueError that says {words!r} for arguments {of_call}, not "
            f"{error!r}"
        ) from error
    else:
        raise AssertionError(
            f"{name} should raise a ValueError that says {words!r} for arguments {of_call}, but "
            "it raises nothing"
        )


def check_copies(make: Make) -> None:
    """A copy, a pickled cell, and another that loads its ``state_dict`` give the same states.

    The cell may be used before: what it remembers of that is no part of it.

    Raises:
        AssertionError: where one does not.
    """
    cell = made(make)
    samples = Samples(cell)
    x, h0, durations = samples.inputs(2, 3), samples.states(3), samples.durations(2, 3)
    states = cell.sequence(x, h0, durations)
    states.sum().backward()
    require(
        torch.equal(cell.sequence(x, h0, durations), states),
        f"{named(cell)} should give the same states when it is called again",
    )
    try:
        copies = {"copy.deepcopy": copy.deepcopy(cell), "pickle": _pickled(cell)}
    except Exception as error:
        raise AssertionError(
            f"{named(cell)} cannot be copied or pickled, for which its class, and those of what "
            f"it is made of, have to be at the top of a module: {error}"
        ) from error
    other = made(make, seed=1)
    try:
        other.load_state_dict(cell.state_dict())
    except (RuntimeError, ValueError) as error:
        raise AssertionError(
            f"make should give cells that load each other's state_dict, but: {error}"
        ) from error
    for way, again in {**copies, "load_state_dict": other}.items():
        require_close(
            again.sequence(x, h0, durations),
            states,
            f"after {way}, {named(cell)} should give the same states: is there something it "
            "uses that is no parameter, buffer or attribute?",
            0.0,
        )


def _pickled(cell: RecurrentCell) -> RecurrentCell:
    again: RecurrentCell = pickle.loads(pickle.dumps(cell))
    return again
