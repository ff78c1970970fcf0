"""Checks of order, tolerance and dense output, against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from solvers.methods.base import Method
from solvers.native import NativeSolver
from solvers.solution import Solution
from solvers.solver import Solver
from solvers.testing.kinds import (
    FEW_DOUBLINGS,
    accuracy_of,
    as_solver,
    has_budget,
    is_semilinear,
    measured_order,
    order_of,
    require,
    require_close,
    with_tolerance,
)
from solvers.testing.problems import Swirl, field_of, states

END = 1.5
# Of which no fraction of the span is a step of a power of two.
TIMES = (0.0, 0.13, 0.71, 1.17, END)


def check_order(solver: Solver | Method, order: int | None = None, *, band: float = 0.1) -> None:
    """The error falls as steps^-order, on a coupled nonlinear system that depends on t.

    Args:
        solver: a solver that takes a number of steps, or a method.
        order: the order it should have; None for the one that its method declares.
        band: how far the measured order may be off.

    Raises:
        AssertionError: where the measured order is another one.
    """
    solver = as_solver(solver)
    expected = order_of(solver, order)
    semilinear = is_semilinear(solver)
    y0 = states(4, 2)

    def error(steps: int) -> float:
        field = field_of(Swirl(), y0, semilinear=semilinear)
        y = solver.with_steps(steps).solve(field, y0, (0.0, END)).y
        return float((y - Swirl().exact(y0, END)).square().mean().sqrt())

    found = measured_order(error, f"order of {solver!r}")
    require(
        abs(found - expected) <= band,
        f"{solver!r} should converge with order {expected}, but its error falls as "
        f"steps^-{found:.2f}: look at its coefficients, or at the order that it declares",
    )


def check_tolerance(solver: Solver, *, factor: float = 50.0) -> None:
    """The error of a solver without a number of steps is near its tolerance, and falls with it.

    Of a method that goes on with the lower order p of its two, tol^(p/(p+1)) is meant for tol.

    Args:
        solver: a dataclass with the fields ``rtol`` and ``atol``, or with a step-size rule that
            has them.
        factor: how many tolerances of a step the error at the end may come to.

    Raises:
        AssertionError: where the error is larger, or hardly falls.
    """
    solver = as_solver(solver)
    semilinear = is_semilinear(solver)
    y0 = states(4, 2)
    errors, goals = [], []
    for tolerance in (1e-3, 1e-5):
        goals.append(accuracy_of(solver, tolerance))
        field = field_of(Swirl(), y0, semilinear=semilinear)
        y = with_tolerance(solver, tolerance).solve(field, y0, (0.0, END)).y
        errors.append(float((y - Swirl().exact(y0, END)).abs().max()))
        require(
            errors[-1] <= factor * goals[-1],
            f"{solver!r} at rtol = atol = {tolerance:g} should keep the error below "
            f"{factor:g} times {goals[-1]:.1e}, but it is {errors[-1]:.1e}",
        )
    require(
        errors[1] <= 5 * goals[1] / goals[0] * errors[0],
        f"the error of {solver!r} should fall about as the tolerance does, but at a tolerance "
        f"100 times smaller it fell from {errors[0]:.1e} to {errors[1]:.1e} only",
    )


def check_dense_output(solver: Solver | Method, order: int | None = None) -> None:
    """States at ``t_eval``: exact at both ends, and as accurate between the steps as at the end.

    A budget solver of order p must reach order min(p, 4) there; one driven by a tolerance must
    keep it. Solvers that control each sample by itself take a time of its own for each.

    Args:
        solver: the solver, or a method.
        order: the order it should have; None for the one that its method declares.

    Raises:
        AssertionError: where a state is not as described.
    """
    solver = as_solver(solver)
    semilinear = is_semilinear(solver)
    y0 = states(4, 2)
    exact = torch.stack([Swirl().exact(y0, time) for time in TIMES])

    def solve(solver: Solver, t_eval: Tensor | tuple[float, ...] = TIMES) -> Tensor:
        field = field_of(Swirl(), y0, semilinear=semilinear)
        return _checked(solver, solver.solve(field, y0, (0.0, END), t_eval=t_eval), y0)

    def error(solver: Solver) -> float:
        return float((solve(solver) - exact).abs().max())

    if has_budget(solver):
        expected = min(order_of(solver, order), 4)
        what = f"dense output of {solver!r}"
        found = measured_order(partial(_error_with, error, solver), what, FEW_DOUBLINGS)
        require(
            found >= expected - 0.2,
            f"{solver!r} should have order {expected} between its steps too, but the error of "
            f"its dense output falls as steps^-{found:.2f}: look at its interpolant",
        )
    else:
        solver = with_tolerance(solver, 1e-4)
        off, goal = error(solver), accuracy_of(solver, 1e-4)
        require(
            off <= 30 * goal,
            f"the dense output of {solver!r} is off by {off:.1e}, over 30 times {goal:.1e}",
        )
    if isinstance(solver, NativeSolver):
        of_each = torch.tensor(TIMES, dtype=torch.float64)[:, None].expand(-1, len(y0))
        what = f"{solver!r} should give the same for t_eval (M,) and (M, B)"
        require_close(solve(solver, of_each), solve(solver), what, 1e-12)


def _error_with(error: Callable[[Solver], float], solver: Solver, steps: int) -> float:
    return error(solver.with_steps(steps))


def _checked(solver: Solver, solution: Solution, y0: Tensor) -> Tensor:
    """The states at ``TIMES``, of the right shape and exact at both ends."""
    ys = solution.ys
    if ys is None or ys.shape != (len(TIMES), *y0.shape) or ys.dtype != y0.dtype:
        raise AssertionError(
            f"{solver!r} should return ys of shape {(len(TIMES), *y0.shape)} and {y0.dtype}, but "
            f"it returned {None if ys is None else (tuple(ys.shape), ys.dtype)}"
        )
    require_close(ys[0], y0, f"ys at t0 of {solver!r} should be y0", 0.0)
    require_close(ys[-1], solution.y, f"ys at t1 of {solver!r} should be y", 1e-14)
    return ys
