"""Checks of the gradient of a solve."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from solvers.gradients.modes import Backpropagation, Checkpointing
from solvers.methods.base import Method
from solvers.native import NativeSolver
from solvers.solver import Solver
from solvers.testing.kinds import (
    FEW_DOUBLINGS,
    accurate,
    as_solver,
    has_budget,
    is_semilinear,
    measured_order,
    order_of,
    require,
    require_close,
    with_tolerance,
)
from solvers.testing.problems import Logistic, field_of, states

END = 1.2
NAMES = ("y0", "a parameter of each sample", "a shared parameter")


def check_gradients(solver: Solver | Method, order: int | None = None) -> None:
    """Gradients of y and ys, for the initial state and for parameters, against a closed form.

    They must converge as fast as the states do. Where the solver takes equal steps and goes back
    through them they are also compared with finite differences. A failed sample must not
    reach the gradients of the others, and nothing is recorded where no gradient is asked for.

    Args:
        solver: the solver, or a method.
        order: the order it should have; None for the one that its method declares.

    Raises:
        AssertionError: where a gradient is missing or wrong.
    """
    solver = as_solver(solver)
    semilinear = is_semilinear(solver)
    _check_convergence(solver, order, semilinear=semilinear)
    if _is_exact(solver):
        _check_finite_differences(solver, semilinear=semilinear)
    _check_failed_sample(solver, semilinear=semilinear)
    y0 = states(3, 2).requires_grad_()
    with torch.no_grad():
        y = solver.solve(field_of(_problem(y0), y0, semilinear=semilinear), y0).y
    require(not y.requires_grad, f"{solver!r} records a graph under torch.no_grad()")


def _problem(y0: Tensor) -> Logistic:
    return Logistic(torch.linspace(0.5, 2.0, y0.shape[0], dtype=y0.dtype).unsqueeze(1))


def _leaves() -> tuple[Tensor, Tensor, Tensor]:
    y0 = states(3, 2)
    scale = torch.ones((), dtype=y0.dtype)
    y0, rate, scale = (x.requires_grad_() for x in (y0, _problem(y0).rate, scale))
    return y0, rate, scale


def _is_exact(solver: Solver) -> bool:
    """Whether the gradient is that of the numbers the solve gave, steps included."""
    return (
        isinstance(solver, NativeSolver)
        and has_budget(solver)
        and not solver.step_size.needs_derivative
        and _goes_through_the_steps(solver)
    )


def _goes_through_the_steps(solver: Solver) -> bool:
    """Whether the gradient is that of the steps; that of an adjoint equation only nears it."""
    return type(getattr(solver, "gradient", None)) in {Backpropagation, Checkpointing}


def _gradients(y: Tensor, ys: Tensor | None, leaves: tuple[Tensor, ...]) -> list[Tensor]:
    """The gradients of a sum over y and ys with weights of either sign."""
    if ys is None:
        raise AssertionError("t_eval was given, but ys is None")
    loss = sum(
        (x * torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view(x.shape)).sum() for x in (y, ys)
    )
    require(
        isinstance(loss, Tensor) and loss.requires_grad,
        "no gradient reaches the result of a solve: it is detached",
    )
    found = torch.autograd.grad(loss, leaves, allow_unused=True)  # type: ignore[arg-type]
    for name, gradient in zip(NAMES, found, strict=False):
        require(gradient is not None, f"no gradient reaches {name}: it is detached in the solve")
    return list(found)


def _check_convergence(solver: Solver, order: int | None, *, semilinear: bool) -> None:
    leaves = y0, rate, scale = _leaves()
    budget = has_budget(solver)
    times = (0.3, 0.9)
    truth = Logistic(rate * scale)
    ys = torch.stack([truth.exact(y0, time) for time in times])
    expected = _gradients(truth.exact(y0, END), ys, leaves)

    @cache
    def errors(work: float) -> list[float]:
        field = field_of(Logistic(rate * scale), y0, semilinear=semilinear)
        chosen = solver.with_steps(int(work)) if budget else with_tolerance(solver, work)
        solution = chosen.solve(field, y0, (0.0, END), t_eval=times)
        found = _gradients(solution.y, solution.ys, leaves)
        pairs = zip(found, expected, strict=True)
        return [float((ours - theirs).abs().max()) for ours, theirs in pairs]

    if not budget:
        tolerance = 1e-5
        for name, error in zip(NAMES, errors(tolerance), strict=True):
            require(
                error <= 300 * tolerance,
                f"the gradient of {name} by {solver!r} at rtol = atol = {tolerance:g} is off by "
                f"{error:.1e}, more than 300 tolerances",
            )
        return
    least = min(order_of(solver, order), 4)
    for index, name in enumerate(NAMES):
        what = f"gradient of {name} by {solver!r}"
        found = measured_order(
            lambda steps, index=index: errors(steps)[index],  # type: ignore[misc]
            what,
            FEW_DOUBLINGS,
        )
        require(
            found >= least - 0.3,
            f"the {what} should converge with order {least}, as the states do, but its error "
            f"falls as steps^-{found:.2f}: a term is missing, or detached",
        )


def _check_finite_differences(solver: Solver, *, semilinear: bool) -> None:
    def solve(y0: Tensor, rate: Tensor, scale: Tensor) -> Tensor:
        field = field_of(Logistic(rate * scale), y0, semilinear=semilinear)
        return solver.with_steps(4).solve(field, y0, (0.0, END)).y

    try:
        torch.autograd.gradcheck(solve, _leaves())
    except RuntimeError as error:  # GradcheckError
        raise AssertionError(
            f"the gradient of {solver!r} is not that of the steps it took: {error}"
        ) from error


def _check_failed_sample(solver: Solver, *, semilinear: bool) -> None:
    solver = accurate(solver, 8, 1e-4)
    found = []
    for broken in ([0.0, 0.0, 0.0], [0.0, 1.0, 0.0]):
        y0, rate, scale = _leaves()
        flags = torch.tensor(broken, dtype=y0.dtype).unsqueeze(1)
        field = field_of(Logistic(rate * scale, flags), y0, semilinear=semilinear)
        solution = solver.solve(field, y0, (0.0, END), throw=False)
        if solution.status[[0, 2]].any():
            return  # one failed sample fails them all: for check_statuses to judge
        loss = solution.y[[0, 2]].sum()
        gradients = torch.autograd.grad(loss, (y0, rate, scale))
        found.append([x[[0, 2]] if x.ndim else x for x in gradients])
    # A solver that has all samples in one graph cannot keep shared parameters clean.
    names = NAMES if isinstance(solver, NativeSolver) else NAMES[:2]
    for name, healthy, beside in zip(names, *found, strict=False):
        what = f"a failed sample changes the gradient of {name} of the others in {solver!r}"
        require_close(beside, healthy, what, 1e-10 if _goes_through_the_steps(solver) else 0.2)
