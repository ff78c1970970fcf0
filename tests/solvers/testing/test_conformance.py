"""The shipped conformance suite: every solver passes it, also one of a user's own."""

from __future__ import annotations

from dataclasses import replace

import pytest

import solvers
from solvers import NativeSolver, testing
from tests.solvers.own_methods import Kutta3, Lawson, ShuOsher, ShuOsherStep, Trapezoid
from tests.solvers.own_rules import OWN_RULES

# Of solvers that do not declare their order.
ORDERS = {"rk4": 4, "torchdiffeq:euler": 1, "torchdiffeq:midpoint": 2, "torchdiffeq:heun3": 3}
SHARED_STEPS = {"dopri5", "torchdiffeq:bosh3", "torchdiffeq:dopri8"}
NAMES = list(dict.fromkeys([*solvers.names(), *ORDERS, *sorted(SHARED_STEPS)]))
NATIVE = [name for name in NAMES if "gradient" in solvers.options(name)]


@pytest.mark.parametrize("name", NAMES)
def test_every_solver_conforms(name: str) -> None:
    solver = solvers.get(name)
    testing.check_solver(solver, ORDERS.get(name), per_sample=name not in SHARED_STEPS)


# One of each kind: equal steps, steps by the slope, steps by the error; general and semilinear.
KINDS = ["euler", "heun", "tsit5", "exponential_euler", "etdrk4"]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("mode", [solvers.Checkpointing, solvers.BacksolveAdjoint])
def test_every_gradient_mode_conforms(name: str, mode: type[solvers.GradientMode]) -> None:
    solver = solvers.get(name)
    assert isinstance(solver, NativeSolver)
    gradient = mode()
    if mode is solvers.BacksolveAdjoint and isinstance(solver.method, solvers.SemilinearMethod):
        gradient = solvers.BacksolveAdjoint(solvers.Tsit5(rtol=1e-10, atol=1e-10))
    testing.check_gradients(replace(solver, gradient=gradient))


@pytest.mark.parametrize("kind", ["explicit", "exponential"])
@pytest.mark.parametrize("evaluations", [2, 4])
def test_learned_solvers_conform_before_they_are_trained(kind: str, evaluations: int) -> None:
    method = solvers.LearnedMethod.of(kind, evaluations)
    testing.check_solver(solvers.LearnedSolver([method]), 2)


ESTIMATING = [name for name in NATIVE if "rtol" in solvers.options(name)]


@pytest.mark.parametrize("name", ESTIMATING)
def test_methods_with_an_estimate_conform_both_ways(name: str) -> None:
    """By a number of steps, and by tolerances; one of them is what the name gives."""
    controlled = solvers.options(name)["steps"] is None
    if controlled:
        solver = solvers.get(name, steps=8)
        testing.check_order(solver)
        testing.check_dense_output(solver)
    else:
        solver = solvers.get(name, rtol=1e-5)
        testing.check_value(solver)
        testing.check_evaluations(solver)
        testing.check_tolerance(solver)
        testing.check_batch_independence(solver)
        testing.check_statuses(solver)


OWN = [Kutta3(steps=8), ShuOsher(steps=8), Trapezoid(), Lawson(steps=8)]


@pytest.mark.parametrize("solver", OWN, ids=lambda solver: type(solver).__name__)
def test_a_method_of_ones_own_conforms(solver: NativeSolver) -> None:
    testing.check_solver(solver)
    testing.check_gradients(replace(solver, gradient=solvers.Checkpointing()))
    if not solver.step_size.controlled:
        testing.check_batch_independence(replace(solver, step_size=solvers.GradientScaled()))


@pytest.mark.parametrize("solver", OWN_RULES, ids=lambda solver: type(solver.step_size).__name__)
def test_a_step_size_rule_of_ones_own_conforms(solver: NativeSolver) -> None:
    testing.check_solver(solver)
    testing.check_gradients(replace(solver, gradient=solvers.Checkpointing()))
    testing.check_gradients(replace(solver, gradient=solvers.BacksolveAdjoint()))


def test_checks_take_a_method_without_a_solver() -> None:
    testing.check_order(ShuOsherStep())
    testing.check_gradients(ShuOsherStep())
    with pytest.raises(AssertionError, match="should converge with order 2"):
        testing.check_order(ShuOsherStep(), order=2)
    with pytest.raises(ValueError, match="give it an instance, not the class"):
        testing.check_order(Kutta3)  # type: ignore[arg-type]
