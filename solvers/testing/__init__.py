"""The conformance suite that every solver of this package passes, for solvers of your own.

>>> import solvers
>>> from solvers import testing
>>> testing.check_solver(solvers.Heun(steps=8))

Each check raises AssertionError, with what was expected and what was found. They need torch
alone, and run on the CPU in about a second.
"""

from solvers.solver import Solver
from solvers.testing.accuracy import check_dense_output, check_order, check_tolerance
from solvers.testing.batches import check_batch_independence, check_statuses
from solvers.testing.events import check_events
from solvers.testing.gradients import check_gradients
from solvers.testing.interface import (
    check_bad_input,
    check_dtypes,
    check_evaluations,
    check_value,
)
from solvers.testing.kinds import as_solver, has_budget

__all__ = [
    "check_bad_input",
    "check_batch_independence",
    "check_dense_output",
    "check_dtypes",
    "check_evaluations",
    "check_events",
    "check_gradients",
    "check_order",
    "check_solver",
    "check_statuses",
    "check_tolerance",
    "check_value",
]


def check_solver(solver: Solver, order: int | None = None, *, per_sample: bool = True) -> None:
    """All checks that apply to the solver.

    Args:
        solver: one that takes a number of steps, or is driven by the tolerances ``rtol`` and
            ``atol``, its own or its step-size rule's; for fields of any kind or semilinear ones.
        order: the order it should have; None for the one that its method declares.
        per_sample: False for a solver whose samples share steps that depend on the data.

    Raises:
        AssertionError: where one of them fails.
        ValueError: where the solver says neither its order nor its tolerances.
    """
    solver = as_solver(solver)
    check_value(solver)
    check_bad_input(solver)
    check_evaluations(solver)
    check_dtypes(solver)
    if has_budget(solver):
        check_order(solver, order)
    else:
        check_tolerance(solver)
    if per_sample:
        check_batch_independence(solver)
    check_statuses(solver, per_sample=per_sample)
    check_dense_output(solver, order)
    check_events(solver)
    check_gradients(solver, order)
