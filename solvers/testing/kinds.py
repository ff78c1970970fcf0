"""What kind of solver is under test, and how its results are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from solvers.methods.base import Method
from solvers.native import NativeSolver
from solvers.solver import Solver

# Powers of two, of which a solver that was trained for some numbers of steps takes multiples.
DOUBLINGS = (16, 32, 64, 128, 256)
FEW_DOUBLINGS = DOUBLINGS[:3]


def require(condition: bool, message: str) -> None:
    """Raise AssertionError where the condition does not hold, also under ``python -O``."""
    if not condition:
        raise AssertionError(message)


def require_close(found: Tensor, expected: Tensor, what: str, tolerance: float) -> None:
    """Raise AssertionError where two tensors differ by more than the tolerance."""
    torch.testing.assert_close(
        found, expected, rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}. {text}"
    )


def as_solver(solver: Solver | Method) -> Solver:
    """A method as a solver that takes equal steps with it.

    Raises:
        ValueError: where it is neither.
    """
    if isinstance(solver, Method):
        return NativeSolver(method=solver)
    if not isinstance(solver, Solver):
        raise ValueError(
            f"solvers.testing checks a solvers.Solver or a solvers.Method, not {solver!r}"
            + (": give it an instance, not the class" if isinstance(solver, type) else "")
        )
    return solver


def has_budget(solver: Solver) -> bool:
    """Whether the solver takes a number of steps; one driven by a tolerance returns itself."""
    return any(solver.with_steps(steps) is not solver for steps in (4, 8))


def is_semilinear(solver: Solver) -> bool:
    """Whether the solver takes semilinear fields only."""
    try:
        solver.solve(lambda t, y: -y, torch.full((2, 3), 0.5))
    except ValueError:
        return True
    return False


def order_of(solver: Solver, order: int | None) -> int:
    """The order of a solver as it was given, or as its method declares it.

    Raises:
        ValueError: where neither says it.
    """
    declared = order if order is not None else getattr(getattr(solver, "method", None), "order", 0)
    if not declared:
        raise ValueError(f"{solver!r} has no method.order: say the order that it should have")
    return int(declared)


def has_option(solver: Solver, name: str) -> bool:
    """Whether the solver, or its step-size rule, has the option."""
    return any(name in _names(part) for part in (solver, getattr(solver, "step_size", None)))


def with_options(solver: Solver, **options: Any) -> Solver:
    """The solver with other options, its own or those of its step-size rule.

    Raises:
        ValueError: where neither is a dataclass with these options.
    """
    rule = getattr(solver, "step_size", None)
    if options.keys() <= _names(solver):
        return replace(solver, **options)  # type: ignore[type-var]
    if options.keys() <= _names(rule):
        changed = {"step_size": replace(rule, **options)}  # type: ignore[type-var]
        return replace(solver, **changed)  # type: ignore[type-var]
    raise ValueError(
        f"{solver!r} takes no number of steps, so it must be a dataclass with the fields "
        f"{', '.join(options)}, or have them in its step_size"
    )


def with_tolerance(solver: Solver, tolerance: float) -> Solver:
    """The solver with rtol = atol = tolerance."""
    return with_options(solver, rtol=tolerance, atol=tolerance)


def accuracy_of(solver: Solver, tolerance: float) -> float:
    """What the error over a span goes with, where that of a step is kept at a tolerance.

    That is tol^(p/q) where the step goes on with the result of the lower order p of its two, and
    its error dt^q is what is kept: 1e-5 gives 5e-4 for p = 2. Else it is the tolerance itself.
    """
    method = getattr(solver, "method", None)
    if not isinstance(method, Method) or not method.error_order:
        return tolerance
    return float(tolerance ** min(1.0, method.order / method.error_order))


def accurate(solver: Solver, steps: int = 16, tolerance: float = 1e-6) -> Solver:
    """The solver at a given amount of work."""
    return solver.with_steps(steps) if has_budget(solver) else with_tolerance(solver, tolerance)


def _names(value: Any) -> set[str]:
    known = is_dataclass(value) and not isinstance(value, type)
    return {field.name for field in fields(value)} if known else set()


def measured_order(
    error: Callable[[int], float],
    what: str,
    doublings: Sequence[int] = DOUBLINGS,
    enough: float = 1e-10,
) -> float:
    """p where the error falls as steps^-p, over the last doubling of those tried.

    The steps are doubled no further once the error is below ``enough``.

    Raises:
        AssertionError: where the error is not finite, or too small to see it fall.
    """
    errors: list[float] = []
    for steps in doublings:
        found = error(steps)
        require(math.isfinite(found), f"{what}: the error with {steps} steps is {found}")
        require(
            found > 1e-11 or len(errors) > 1,
            f"{what}: the error with {steps} steps is {found:.1e}, at the level of rounding, so "
            "that no order can be measured",
        )
        if found <= 1e-11:
            break
        errors.append(found)
        if len(errors) > 1 and found < enough:
            break
    return math.log2(errors[-2] / errors[-1])
