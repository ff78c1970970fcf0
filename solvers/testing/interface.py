"""Checks of what a solver takes and gives back: dtypes, evaluations, bad input, being a value."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from solvers.fields.base import SemilinearField
from solvers.methods.base import Method
from solvers.solver import Solver
from solvers.testing.kinds import (
    accurate,
    as_solver,
    has_budget,
    is_semilinear,
    require,
    require_close,
)
from solvers.testing.problems import Swirl, field_of, logistic, recorded, states

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_dtypes(solver: Solver | Method) -> None:
    """States of any floating-point type and of any number of axes keep their type and shape.

    The field sees states of that type, whatever the solver computes in, and never a float64 that
    the user did not bring, which some devices do not have.

    Raises:
        AssertionError: where a type or a shape is another, or the result is too far off for it.
    """
    solver = accurate(as_solver(solver), 16, 1e-4)
    semilinear = is_semilinear(solver)
    for shape in ((4,), (2, 3), (3, 2, 2, 5)):
        wide = states(*shape)
        best = solver.solve(field_of(logistic(wide), wide, semilinear=semilinear), wide)
        require(best.ys is None, f"without t_eval, ys of {solver!r} should be None")
        truth = logistic(wide).exact(wide, 1.0)
        error = float((best.y - truth).abs().max())
        for dtype in DTYPES:
            y0 = states(*shape, dtype=dtype)
            field, recorder = recorded(logistic(y0), y0, semilinear=semilinear)
            solution = solver.solve(field, y0, t_eval=[0.5])
            what = f"for y0 {shape} {dtype}, {solver!r} should "
            for name, value, size in (("y", solution.y, shape), ("ys", solution.ys, (1, *shape))):
                found = None if value is None else (tuple(value.shape), value.dtype)
                require(found == (size, dtype), f"{what}return {name} alike, not {found}")
            seen = {y.dtype for _, y in recorder.calls}
            require(seen == {dtype}, f"{what}call the field with {dtype}, not {seen}")
            times = {t.dtype for t, _ in recorder.calls}
            require(
                dtype == torch.float64 or torch.float64 not in times,
                f"{what}not bring in float64, but it calls the field with such times",
            )
            slack = 2 * error + 32 * torch.finfo(dtype).eps
            require_close(solution.y.double(), truth, f"{what}be accurate to {slack:.1e}", slack)


def check_evaluations(solver: Solver | Method) -> None:
    """The field is called as described, over the whole span and no further, and counted.

    Times broadcast against the state and lie within the span, starting at t0. ``stats.nfe``
    counts the evaluations: an int for all samples, or each sample's own. A budget of steps (or of
    evaluations) is kept, and a constant dy/dt is integrated without error.

    Raises:
        AssertionError: where a call or a count is not as described.
    """
    solver = accurate(as_solver(solver), 4, 1e-4)
    semilinear = is_semilinear(solver)
    budget = has_budget(solver)
    for span, shape in (((0.25, 1.5), (3, 2)), ((-1 / 3, 1.0), (2, 2, 3)), ((0.0, 1.0), (4,))):
        y0 = states(*shape)
        for steps in (4, 8) if budget else (1,):
            chosen = solver.with_steps(steps)
            field, recorder = recorded(logistic(y0), y0, semilinear=semilinear)
            solution = chosen.solve(field, y0, span)
            what = f"over {span} with y0 {shape}, {chosen!r} should "
            _check_calls(recorder.calls, span, what)
            nfe, accepted = solution.stats.nfe, solution.stats.accepted
            if isinstance(nfe, Tensor):
                require(
                    nfe.dtype == torch.int64 and int(nfe.sum()) == recorder.evaluated,
                    f"{what}count {recorder.evaluated} evaluations of samples, not {nfe}",
                )
            else:
                require(
                    nfe == len(recorder.calls),
                    f"{what}count {len(recorder.calls)} evaluations, not {nfe}",
                )
            require(
                not budget or (isinstance(nfe, int) and steps in {accepted, nfe}),
                f"{what}take {steps} steps, but stats.accepted is {accepted}",
            )
        if not semilinear:
            slope = torch.full_like(y0, 0.7)
            y = solver.solve(lambda t, y, slope=slope: slope, y0, span).y
            expected = y0 + 0.7 * (span[1] - span[0])
            require_close(y, expected, f"{solver!r} should land on t1 of {span}", 1e-12)


def _check_calls(calls: list[tuple[Any, Tensor]], span: tuple[float, float], what: str) -> None:
    for t, y in calls:
        require(isinstance(t, Tensor), f"{what}call the field with t a tensor, not {type(t)}")
        require(
            t.ndim == 0 or (y.ndim > 1 and t.shape == (y.shape[0], *[1] * (y.ndim - 1))),
            f"{what}call it with t of shape () or (B, 1, ..., 1), not {tuple(t.shape)}",
        )
    times = torch.cat([t.double().reshape(-1) for t, _ in calls])
    slack = 1e-9 * (span[1] - span[0])
    require(
        bool(((times >= span[0] - slack) & (times <= span[1] + slack)).all()),
        f"{what}evaluate within the span, not from {float(times.min())} to {float(times.max())}",
    )
    first = calls[0][0].double()
    require(
        bool(((first - span[0]).abs() <= slack).all()),
        f"{what}evaluate first at t0, not at {first.tolist()}",
    )


def check_bad_input(solver: Solver | Method) -> None:
    """What cannot be solved raises a ValueError that names it.

    Raises:
        AssertionError: where it does not.
    """
    solver = as_solver(solver)
    semilinear = is_semilinear(solver)
    y0 = states(2, 3, dtype=torch.float32)
    good: Any = field_of(Swirl(), y0, semilinear=semilinear) if semilinear else lambda t, y: -y

    def refuses(words: str, field: Any, y0: Any, span: Any = (0.0, 1.0), **more: Any) -> None:
        _require_refusal(solver, words, lambda: solver.solve(field, y0, span, **more))

    for span in ((0.0, math.nan), (0.0, math.inf), (0.0,), "ab"):
        refuses("t_span", good, y0, span)
    refuses("floating point", good, torch.ones(2, 3, dtype=torch.long))
    refuses("y0 must be a tensor", good, [1.0])
    for times in ([], [2.0], [0.5, 0.2], [[0.5]]):
        refuses("t_eval", good, y0, t_eval=times)
    wrong: list[tuple[str, Callable[[Tensor, Tensor], Any]]] = [
        ("(2, 3)", lambda t, y: y[0]),
        ("torch.float64", lambda t, y: y.double()),
        ("tensor", lambda t, y: 1.0),
    ]
    for words, function in wrong:
        refuses(words, SemilinearField(function, 1.0) if semilinear else function, y0)
    refuses("callable", 3, y0)
    if semilinear:
        refuses("SemilinearField", lambda t, y: -y, y0)
    for steps in (0, -1, 2.5, "3", True):
        _require_refusal(solver, "steps", lambda steps=steps: solver.with_steps(steps))  # type: ignore[misc]


def _require_refusal(solver: Solver, words: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except ValueError as error:
        require(
            words in str(error),
            f"{solver!r} should name {words!r} in its ValueError, but it says: {error}",
        )
    except Exception as error:
        raise AssertionError(
            f"{solver!r} should raise a ValueError that names {words!r}, not {error!r}"
        ) from error
    else:
        raise AssertionError(f"{solver!r} should raise a ValueError that names {words!r}")


def check_value(solver: Solver) -> None:
    """A solver is an immutable value: it can be compared, hashed, pickled and used again.

    A learned solver, which is an nn.Module, has to leave its parameters as they are.

    Raises:
        AssertionError: where it cannot, or where a solve changes it.
    """
    solver = as_solver(solver)
    y0 = states(3, 2)
    field = field_of(logistic(y0), y0, semilinear=is_semilinear(solver))
    before = copy.deepcopy(solver)
    first = solver.solve(field, y0).y
    require_close(solver.solve(field, y0).y, first, f"{solver!r} should solve twice alike", 0.0)
    try:
        again = pickle.loads(pickle.dumps(solver))
    except Exception as error:
        raise AssertionError(
            f"{solver!r} cannot be pickled, for which its class has to be at the top of a "
            f"module: {error}"
        ) from error
    what = f"{solver!r} should solve alike after pickling"
    require_close(again.solve(field, y0).y, first, what, 0.0)
    if isinstance(solver, nn.Module) and isinstance(before, nn.Module):
        for name, value in before.state_dict().items():
            now = solver.state_dict()[name]
            require(torch.equal(now, value), f"a solve changes {name} of {solver!r}")
        return
    require(is_dataclass(solver), f"{solver!r} should be a frozen dataclass")
    require(solver == before and hash(solver) == hash(before), f"a solve changes {solver!r}")
    require(again == solver, f"{solver!r} should be equal to itself after pickling")
    for name in ("steps", "method", "anything"):
        try:
            setattr(solver, name, getattr(solver, name, 1))
        except FrozenInstanceError:
            continue
        raise AssertionError(
            f"{solver!r} lets its {name} be set: decorate its class with @dataclass(frozen=True)"
        )
    if has_budget(solver):
        require(
            solver.with_steps(4) == solver.with_steps(8).with_steps(4) != solver.with_steps(8),
            f"{solver!r}.with_steps(n) should be the same solver with n steps",
        )
