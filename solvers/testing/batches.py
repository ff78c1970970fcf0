"""Checks that samples do not depend on each other, also where one fails."""

from __future__ import annotations

import torch
from torch import Tensor

from solvers.fields.base import VectorField
from solvers.methods.base import Method
from solvers.solution import MAX_STEPS, SUCCESS, Solution, SolverError
from solvers.solver import Solver
from solvers.testing.kinds import (
    accurate,
    as_solver,
    has_budget,
    has_option,
    is_semilinear,
    require,
    require_close,
    with_options,
)
from solvers.testing.problems import Logistic, field_of, logistic, states


def check_batch_independence(solver: Solver | Method) -> None:
    """A sample's result, and its number of steps, do not depend on what else is in its batch.

    States of two and four axes; batches of one sample, of as many samples as a state has
    elements, of a part, and in another order.

    Raises:
        AssertionError: where they do.
    """
    solver = accurate(as_solver(solver), 4, 1e-4)
    semilinear = is_semilinear(solver)
    for shape in ((4, 4), (3, 2, 1, 3)):
        y0 = states(*shape)
        problem = logistic(y0)
        whole = solver.solve(field_of(problem, y0, semilinear=semilinear), y0)
        count = shape[0]
        order = [*range(1, count, 2), *range(0, count, 2)]
        for rows in ([0], [count - 1], list(range(count - 1)), order):
            field = field_of(Logistic(problem.rate[rows]), y0[rows], semilinear=semilinear)
            part = solver.solve(field, y0[rows])
            _compare(part, whole, rows, f"rows {rows} of states {shape}, alone by {solver!r}, ")


def _compare(part: Solution, whole: Solution, rows: list[int], what: str) -> None:
    """Some rows by themselves against the same rows in their batch."""
    require_close(part.y, whole.y[rows], what + "should give what they give in the batch", 1e-11)
    for name in ("accepted", "rejected"):
        alone, together = getattr(part.stats, name), getattr(whole.stats, name)
        if isinstance(together, Tensor):
            together, alone = together[rows].tolist(), alone.tolist()
        require(
            alone == together,
            f"{what}should take the steps they take in the batch: stats.{name} is {alone}, not "
            f"{together}",
        )


def check_statuses(solver: Solver | Method, *, per_sample: bool = True) -> None:
    """Failures become statuses, or a SolverError; the states of the other samples are right.

    Args:
        solver: the solver, or a method.
        per_sample: whether the other samples must not fail; False for a solver whose samples
            share their steps.

    Raises:
        AssertionError: where a status, a state or an error is not as described.
    """
    solver = accurate(as_solver(solver), 8, 1e-4)
    semilinear = is_semilinear(solver)
    y0 = states(3, 2)
    rate = torch.full((3, 1), 1.5, dtype=y0.dtype)
    healthy = solver.solve(field_of(Logistic(rate), y0, semilinear=semilinear), y0)
    _require_status(healthy, [SUCCESS] * 3, f"the status of a solve by {solver!r}")

    broken = torch.tensor([[0.0], [1.0], [0.0]], dtype=y0.dtype)
    field = field_of(Logistic(rate, broken), y0, semilinear=semilinear)
    solution = solver.solve(field, y0, throw=False)
    what = f"with an infinite dy/dt in the second of three samples, {solver!r} should "
    require(
        int(solution.status[1]) != SUCCESS,
        f"{what}give it a status that is not SUCCESS, not {solution.status.tolist()}",
    )
    require(
        bool(torch.isfinite(solution.y).all()),
        f"{what}keep the last finite state of a failed sample, not {solution.y.tolist()}",
    )
    others = solution.status[[0, 2]].tolist()
    if per_sample:
        require(others == [SUCCESS] * 2, f"{what}leave the others SUCCESS, not {others}")
        require_close(
            solution.y[[0, 2]], healthy.y[[0, 2]], f"{what}solve the others as without it", 1e-11
        )
    words = "1 of 3 samples (1)" if per_sample else "of 3 samples"
    _require_error(solver, field, y0, words, what)
    if has_option(solver, "max_steps") and not has_budget(solver):
        hurried = with_options(solver, max_steps=2)
        field = field_of(Logistic(20 * rate), y0, semilinear=semilinear)
        solution = hurried.solve(field, y0, throw=False)
        _require_status(solution, [MAX_STEPS] * 3, f"after 2 steps, the status by {hurried!r}")
        _require_error(hurried, field, y0, "3 of 3 samples", f"{hurried!r} should ")


def _require_status(solution: Solution, expected: list[int], what: str) -> None:
    status = solution.status
    require(
        status.dtype == torch.int8 and status.tolist() == expected,
        f"{what} should be int8 {[int(code) for code in expected]}, but it is {status}",
    )


def _require_error(solver: Solver, field: VectorField, y0: Tensor, words: str, what: str) -> None:
    """The solve raises an error that names how many samples failed."""
    try:
        solver.solve(field, y0)
    except SolverError as error:
        require(words in str(error), f"{what}say that {words} failed, but it says: {error}")
    else:
        raise AssertionError(f"{what}raise SolverError unless throw=False, but it raises nothing")
