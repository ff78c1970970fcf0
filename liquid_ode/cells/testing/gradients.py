"""Checks of a cell's gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.ode import ODECell
from liquid_ode.cells.testing.samples import Make, Samples, made, named, parameters_of, with_solver
from solvers import Backpropagation, NativeSolver, Solver, Uniform
from solvers.testing.kinds import has_budget, require, require_close, with_tolerance

STEPS, BATCH = 2, 2


def check_gradients(make: Make) -> None:
    """Gradients of states for inputs, state, durations and parameters are right, and all there.

    They are compared with finite differences, which see steps change that no gradient flows
    through. So a solver with a number of steps takes equal ones here, and goes back through them;
    a tolerance is tight. (Other rules and modes are for the solver's own suite,
    :mod:`solvers.testing`.)

    Raises:
        AssertionError: where a gradient is missing or wrong.
    """
    cell = made(make)
    _check_reach(cell)
    _check_undisturbed(cell)
    budget = True
    if isinstance(cell, ODECell):
        budget = has_budget(cell.solver)
        cell = with_solver(cell, with_plain_gradient(cell.solver))
    samples = Samples(cell)
    x, h0 = samples.inputs(STEPS, BATCH), samples.states(BATCH)
    durations = samples.durations(STEPS, BATCH)
    given = {"x": x, "h0": h0, "durations": durations}
    given = {name: tensor.requires_grad_() for name, tensor in given.items()}
    given |= parameters_of(cell)

    fixed = durations.detach()

    def of_durations(x: Tensor, h0: Tensor, durations: Tensor, *parameters: Tensor) -> Tensor:
        return cell.sequence(x, h0, durations)

    def of_the_rest(x: Tensor, h0: Tensor, *parameters: Tensor) -> Tensor:
        states = cell.sequence(x, h0, fixed), cell.sequence(x[:1], h0), cell(x, duration=0.4)
        return torch.cat(states)

    _compare(cell, "with those of durations", of_durations, given, exact=budget)
    del given["durations"]
    _compare(cell, "without those of durations", of_the_rest, given, exact=budget)


def with_plain_gradient(solver: Solver) -> Solver:
    """The solver as finite differences see it."""
    if not has_budget(solver):
        solver = with_tolerance(solver, 1e-7)
    if not isinstance(solver, NativeSolver):
        return solver
    rule = Uniform() if has_budget(solver) else solver.step_size
    return replace(solver, step_size=rule, gradient=Backpropagation())


def _compare(
    cell: RecurrentCell,
    what: str,
    run: Callable[..., Tensor],
    given: dict[str, Tensor],
    *,
    exact: bool,
) -> None:
    """Gradients against finite differences, along random directions of each tensor."""
    # An adaptive solve errs by about its tolerance, which a difference divides by its width.
    eps, atol, rtol = (1e-6, 1e-7, 1e-5) if exact else (1e-3, 1e-3, 1e-2)
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    try:
        tensors = tuple(given.values())
        torch.autograd.gradcheck(run, tensors, eps=eps, atol=atol, rtol=rtol, fast_mode=True)
    except RuntimeError as error:  # GradcheckError
        places = ", ".join(f"{index} {name}" for index, name in enumerate(given))
        raise AssertionError(
            f"gradients of {named(cell)}, {what}, should be those of finite differences (the "
            f"inputs are {places}): {error}"
        ) from error
    finally:
        torch.set_rng_state(before)


def _check_reach(cell: RecurrentCell) -> None:
    """Every parameter has a say, and nothing is recorded where no gradient is asked for."""
    samples = Samples(cell)
    x, h0, durations = samples.inputs(3, 4), samples.states(4), samples.durations(3, 4)
    with torch.no_grad():
        states = cell.sequence(x, h0, durations)
    require(not states.requires_grad, f"{named(cell)} records a graph under torch.no_grad()")
    silent, states = states, cell.sequence(x, h0, durations)
    what = f"{named(cell)} should give the same states with and without a graph"
    require_close(states, silent, what, 1e-11)
    require(states.requires_grad, f"no gradient reaches the parameters of {named(cell)}")
    parameters = parameters_of(cell)
    loss = states.square().sum()
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    for name, gradient in zip(parameters, found, strict=True):
        require(
            gradient is not None and bool((gradient != 0).any()),
            f"{name} of {named(cell)} should get a gradient, but it is "
            f"{'not used, or detached' if gradient is None else 'zero everywhere'}",
        )


def _check_undisturbed(cell: RecurrentCell) -> None:
    """States and gradients of one call are left alone by another, and can be asked for again."""
    samples = Samples(cell)
    h0, durations = samples.states(4), samples.durations(3, 4)
    parameters = parameters_of(cell)

    def with_gradients(states: Tensor) -> dict[str, Tensor]:
        loss = states.square().sum()
        found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        return {"states": states, **dict(zip(parameters, found, strict=True))}

    first, second = samples.inputs(3, 4), samples.inputs(3, 4)
    alone = with_gradients(cell.sequence(first, h0, durations))
    expected = {name: tensor.detach().clone() for name, tensor in alone.items()}
    states = cell.sequence(first, h0, durations)
    with_gradients(cell.sequence(second, h0, durations))
    for what in ("after another call", "when asked for again"):
        for name, tensor in with_gradients(states).items():
            require_close(
                tensor.detach(),
                expected[name],
                f"{name} of {named(cell)}, or its gradient, should be what it is alone {what}: is "
                "there memory that calls share?",
                1e-12,
            )
