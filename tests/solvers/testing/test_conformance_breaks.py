"""The shipped conformance suite: what is broken fails it, check by check."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import solvers
from solvers import (
    PID,
    BudgetRule,
    ButcherTableau,
    ClassicRK4,
    DormandPrince,
    Heun,
    NativeSolver,
    Problem,
    RungeKutta,
    Solution,
    Solver,
    SolverError,
    TorchDiffEq,
    testing,
)
from solvers.step_size.rules import Budget, sample_norm
from tests.solvers.own_methods import ShuOsherStep


@dataclass(frozen=True)
class Wrapped(Solver):
    """A solver of another kind than the package's own: it hands on to one of those."""

    steps: int = 8

    def inner(self) -> Solver:
        return Heun(steps=self.steps)

    def solve_problem(self, problem: Problem) -> Solution:
        return self.inner().solve_problem(problem)

    def with_steps(self, steps: int) -> Wrapped:
        self.inner().with_steps(steps)
        return replace(self, steps=steps)


def test_a_solver_of_another_kind_conforms_and_has_to_say_its_order() -> None:
    testing.check_solver(Wrapped(), 2)
    with pytest.raises(ValueError, match="say the order that it should have"):
        testing.check_order(Wrapped())
    with pytest.raises(
        AssertionError, match=r"with order 3, but its error falls as steps\^-(1\.9|2\.0)"
    ):
        testing.check_order(Wrapped(), 3)


def rejects(check: Callable[..., None], solver: Any, words: str, *more: Any, **named: Any) -> None:
    with pytest.raises(AssertionError, match=words):
        check(solver, *more, **named)


def test_wrong_coefficients_fail() -> None:
    rk4 = ClassicRK4().method.tableau  # type: ignore[attr-defined]
    wrong = RungeKutta(replace(rk4, b=(1 / 3, 1 / 6, 1 / 6, 1 / 3)))
    rejects(testing.check_order, wrong, r"should converge with order 4, but .* steps\^-[12]\.")
    # Of a coefficient that only one condition of order 5 notices.
    dopri5 = DormandPrince().method.tableau  # type: ignore[attr-defined]
    row = list(dopri5.a[4])
    row[0], row[1] = row[0] + 1e-3, row[1] - 1e-3
    wrong = RungeKutta(replace(dopri5, a=(*dopri5.a[:4], tuple(row), dopri5.a[5])))
    rejects(testing.check_order, wrong, "should converge with order 5")
    modest = RungeKutta(replace(rk4, order=3))
    rejects(testing.check_order, modest, r"should converge with order 3, but .* steps\^-[34]\.")


def test_a_wrong_interpolant_fails() -> None:
    tableau = DormandPrince().method.tableau  # type: ignore[attr-defined]
    line = tuple((weight, 0.0, 0.0, 0.0) for weight in tableau.b)
    wrong = RungeKutta(replace(tableau, interpolant=line))
    rejects(testing.check_dense_output, wrong, "should have order 4 between its steps too")


class Warped(RungeKutta):
    """Its path is at another time than it is asked for."""

    def path(self, field: Any, y: Tensor, dt: Any, first: Tensor, result: Any) -> Any:
        own = super().path(field, y, dt, first, result)
        warped = lambda theta, *rest: own.formula(theta * theta, *rest)  # noqa: E731
        return replace(own, formula=warped)


class Elsewhere(NativeSolver, method=DormandPrince().method):
    """Ends a sample at a state that is not on the surface."""

    def solve_problem(self, problem: Any) -> Solution:
        solution = super().solve_problem(problem)
        return solution if solution.event_time is None else replace(solution, y=solution.y + 1e-3)


def test_wrong_events_fail() -> None:
    method = Warped(DormandPrince().method.tableau)  # type: ignore[attr-defined]
    solver = NativeSolver(method=method, rtol=1e-5)
    rejects(testing.check_events, solver, "find the times of the events")
    rejects(testing.check_events, Elsewhere(rtol=1e-5), "end on the surface")


@dataclass(frozen=True)
class Coupled(BudgetRule):
    """Sizes a step by the largest slope in the batch."""

    def propose(self, control: Budget, derivative: Tensor | None) -> Any:
        if control.steps_left == 1 or derivative is None:
            return control.remaining
        return control.remaining / (1 + (control.steps_left - 1) * sample_norm(derivative).max())

    def whole(self, span: float, y0: Tensor) -> Tensor:
        return y0.new_full((y0.shape[0], *[1] * (y0.ndim - 1)), span)

    needs_derivative: ClassVar[bool] = True


def test_steps_that_depend_on_the_batch_fail() -> None:
    solver = Heun(steps=5, step_size=Coupled())
    rejects(testing.check_batch_independence, solver, "should give what they give in the batch")
    solver = TorchDiffEq("dopri5")
    rejects(testing.check_batch_independence, solver, "what they give in the batch|take the steps")


class MeanStep(ShuOsherStep):
    """Mixes the batch, where a sum over samples was meant to be one over elements."""

    def step(self, field: Any, t: Tensor, y: Tensor, dt: Any, first: Tensor) -> solvers.StepResult:
        result = super().step(field, t, y, dt, first)
        return result._replace(y=result.y + 0 * result.y.mean(0))


def test_a_failed_sample_that_spoils_its_neighbours_fails() -> None:
    rejects(testing.check_statuses, MeanStep(), r"leave the others SUCCESS, not \[2, 2\]")


class Upcast(Wrapped):
    def solve(self, field: Any, y0: Any, t_span: Any = (0.0, 1.0), **more: Any) -> Solution:
        if not isinstance(y0, Tensor) or not y0.is_floating_point():
            return super().solve(field, y0, t_span, **more)

        def wide(t: Tensor, y: Tensor) -> Tensor:
            return field(t.double(), y.to(y0.dtype)).double()

        solution = self.inner().solve(wide, y0.double(), t_span, **more)
        ys = None if solution.ys is None else solution.ys.to(y0.dtype)
        return replace(solution, y=solution.y.to(y0.dtype), ys=ys)


class LeftWide(Upcast):
    def solve(self, field: Any, y0: Any, t_span: Any = (0.0, 1.0), **more: Any) -> Solution:
        solution = super().solve(field, y0, t_span, **more)
        return replace(solution, y=solution.y.double())


def test_float64_that_was_not_asked_for_fails() -> None:
    rejects(testing.check_dtypes, Upcast(), "not bring in float64")
    rejects(testing.check_dtypes, LeftWide(), "return y alike, not .*float64")


class Detached(ShuOsherStep):
    def step(self, field: Any, t: Tensor, y: Tensor, dt: Any, first: Tensor) -> solvers.StepResult:
        return super().step(field, t, y, dt, first.detach())


class Forgetful(Wrapped):
    def solve(self, field: Any, y0: Any, t_span: Any = (0.0, 1.0), **more: Any) -> Solution:
        with torch.no_grad():
            return super().solve(field, y0, t_span, **more)


class KeepsGraph(Wrapped):
    def solve(self, field: Any, y0: Any, t_span: Any = (0.0, 1.0), **more: Any) -> Solution:
        with torch.enable_grad():
            return super().solve(field, y0, t_span, **more)


def test_detached_gradients_fail() -> None:
    rejects(testing.check_gradients, Detached(), "a term is missing, or detached")
    rejects(testing.check_gradients, Forgetful(), "no gradient reaches", 2)
    rejects(testing.check_gradients, KeepsGraph(), "records a graph", 2)


class Silent(Wrapped):
    def solve(self, field: Any, y0: Any, t_span: Any = (0.0, 1.0), **more: Any) -> Solution:
        return super().solve(field, y0, t_span, **{**more, "throw": False})


class Optimist(Wrapped):
    def solve(self, field: Any, y0: Any, t_span: Any = (0.0, 1.0), **more: Any) -> Solution:
        solution = super().solve(field, y0, t_span, **more)
        return replace(solution, status=torch.zeros_like(solution.status))


class KeepsInfinity(Wrapped):
    def solve(self, field: Any, y0: Any, t_span: Any = (0.0, 1.0), **more: Any) -> Solution:
        solution = super().solve(field, y0, t_span, **more)
        failed = solution.status != 0
        return replace(solution, y=torch.where(failed[:, None], torch.inf, solution.y))


def test_wrong_statuses_fail() -> None:
    rejects(testing.check_statuses, Silent(), "raise SolverError unless throw=False")
    rejects(testing.check_statuses, Optimist(), "a status that is not SUCCESS")
    rejects(testing.check_statuses, KeepsInfinity(), "last finite state")


class Mute(Wrapped):
    def solve(self, field: Any, y0: Any, t_span: Any = (0.0, 1.0), **more: Any) -> Solution:
        try:
            return super().solve(field, y0, t_span, **more)
        except SolverError:
            raise SolverError("something failed") from None


class Lenient(Wrapped):
    def solve(self, field: Any, y0: Any, t_span: Any = (0.0, 1.0), **more: Any) -> Solution:
        if len(t_span) == 2 and not t_span[1] < math.inf:
            t_span = 0.0, 1.0
        return super().solve(field, y0, t_span, **more)


def test_bad_errors_fail() -> None:
    rejects(testing.check_statuses, Mute(), r"say that 1 of 3 samples \(1\) failed")
    rejects(testing.check_bad_input, Lenient(), "should raise a ValueError that names 't_span'")


class Miscounted(ShuOsherStep):
    stages = 2


class Overshoot(Wrapped):
    def solve(self, field: Any, y0: Any, t_span: Any = (0.0, 1.0), **more: Any) -> Solution:
        return super().solve(field, y0, (t_span[0], t_span[1] + 1e-6), **more)


class WrongBudget(Wrapped):
    def inner(self) -> Solver:
        return Heun(steps=self.steps + 1)


class UntimelyStep(ShuOsherStep):
    """Its times are two vectors too many."""

    def step(self, field: Any, t: Tensor, y: Tensor, dt: Any, first: Tensor) -> solvers.StepResult:
        return super().step(lambda t, y: field(t.expand_as(y), y), t, y, dt, first)


def test_wrong_evaluations_fail() -> None:
    rejects(testing.check_evaluations, Miscounted(), "should count 12 evaluations, not 8")
    rejects(testing.check_evaluations, Overshoot(), "evaluate within the span|land on t1")
    rejects(testing.check_evaluations, WrongBudget(), "take 4 steps, but stats.accepted is 5")
    rejects(
        testing.check_evaluations,
        UntimelyStep(),
        r"t of shape \(\) or \(B, 1, ..., 1\), not \(3, 2\)",
    )


@dataclass(frozen=True)
class Careless(PID):
    """Takes no notice of its tolerances."""

    def judge(self, control: Any, *arguments: Any) -> Any:
        loose = torch.full_like(control.rtol, 1e-3)
        return super().judge(control._replace(rtol=loose, atol=loose), *arguments)


def test_a_tolerance_that_is_not_kept_fails() -> None:
    solver = DormandPrince(step_size=Careless())
    rejects(testing.check_tolerance, solver, "should keep the error below|fall about as")
    with pytest.raises(ValueError, match="must be a dataclass with the fields rtol, atol"):
        testing.check_tolerance(Wrapped())


class Counting(Wrapped):
    """Remembers something of its solves."""

    def solve(self, field: Any, y0: Any, t_span: Any = (0.0, 1.0), **more: Any) -> Solution:
        object.__setattr__(self, "steps", self.steps + 1)
        return super().solve(field, y0, t_span, **more)


class NoDataclass(Solver):
    steps = 8

    def solve_problem(self, problem: Problem) -> Solution:
        return Heun(steps=self.steps).solve_problem(problem)

    def with_steps(self, steps: int) -> Solver:
        return self


@dataclass(unsafe_hash=True)
class Changeable(NoDataclass):
    steps: int = 8


def test_solvers_that_are_no_values_fail() -> None:
    rejects(testing.check_value, Counting(), "solve twice alike|a solve changes")
    rejects(testing.check_value, NoDataclass(), "should be a frozen dataclass")
    rejects(testing.check_value, Changeable(), r"decorate its class with @dataclass\(frozen=True\)")

    class Local(solvers.NativeSolver, method=Heun().method):
        """Of a function, where pickle does not find it."""

    rejects(testing.check_value, Local(), "cannot be pickled")


def test_the_suite_says_how_wrong_a_tableau_is() -> None:
    tableau = ButcherTableau(a=((0.5,),), b=(0.5, 0.5), c=(0.0, 0.5), order=2)
    rejects(testing.check_order, RungeKutta(tableau), r"falls as steps\^-1\.0.: look at its coeff")


def test_a_learned_solver_that_learns_in_a_solve_fails() -> None:
    class Restless(solvers.LearnedSolver):
        def solve(self, *arguments: Any, **more: Any) -> Solution:
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.add_(1e-9)
            return super().solve(*arguments, **more)

    solver = Restless([solvers.LearnedMethod.of("explicit", 2)])
    rejects(testing.check_value, solver, "solve twice alike|a solve changes|cannot be pickled")
