"""Solvers with a budget of steps: explicit Runge-Kutta and relaxation methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from solvers.fields import VectorField
from solvers.integrate import (
    all_finite,
    finite_samples,
    finite_status,
    integrate,
    under_transform,
)
from solvers.methods import Method, Relaxation, RungeKutta
from solvers.solution import Solution
from solvers.solver import Solver, check_problem, check_steps
from solvers.step_size import GradientScaled, StepSizeRule, Uniform
from solvers.tableau import EULER, HEUN, MIDPOINT
from solvers.taped import solve_taped

Self = TypeVar("Self", bound="BudgetSolver")


@dataclass(frozen=True)
class BudgetSolver(Solver):
    """A method that takes exactly ``steps`` steps, whose sizes a rule chooses.

    A subclass names its ``method``; that is all it takes to add one.

    Args:
        steps: number of steps, at least 1.
        step_size: how the time span is split; :class:`Uniform` or :class:`GradientScaled`.

    Raises:
        ValueError: where ``steps`` is below 1.
    """

    steps: int = 5
    step_size: StepSizeRule = Uniform()

    method: ClassVar[Method]

    def __post_init__(self) -> None:
        check_steps(self.steps)
        if not callable(getattr(self.step_size, "propose", None)):
            raise ValueError(
                "step_size must be a rule such as solvers.Uniform() or solvers.GradientScaled(), "
                f"not {self.step_size!r}"
            )

    def solve(
        self,
        field: VectorField,
        y0: Tensor,
        t_span: tuple[float, float] = (0.0, 1.0),
        *,
        t_eval: Tensor | Sequence[float] | None = None,
        throw: bool = True,
    ) -> Solution:
        span, times = check_problem(y0, t_span, t_eval)
        self.method.check(field)

        def solve(method: Method, field: VectorField, y0: Tensor) -> Solution:
            return integrate(method, self.step_size, self.steps, field, y0, span, times)

        solution = solve_taped(solve, self.method, field, y0) if times is None else None
        if solution is None:
            solution = solve(self.method, field, y0)
        if under_transform() or all_finite(solution.y.detach()):
            return solution
        if throw:
            replace(solution, status=finite_status(finite_samples(solution.y))).throw()
        # Rare, so paid for only here: the same solve again, checked at every step.
        careful = integrate(
            self.method, self.step_size, self.steps, field, y0, span, times, freeze=True
        )
        nfe = solution.stats.nfe + careful.stats.nfe
        return replace(careful, stats=replace(careful.stats, nfe=nfe))

    def with_steps(self: Self, steps: int) -> Self:
        return replace(self, steps=steps)


@dataclass(frozen=True)
class Euler(BudgetSolver):
    """Explicit Euler, order 1: y1 = y + dt f(t, y).

    The default solver. Its steps adapt to the size of dy/dt (:class:`GradientScaled`); with
    ``step_size=Uniform()`` they are equal. Stable for the leak of a liquid cell where
    dt < 2 tau.
    """

    step_size: StepSizeRule = GradientScaled()
    method: ClassVar[Method] = RungeKutta(EULER)


@dataclass(frozen=True)
class Midpoint(BudgetSolver):
    """Explicit midpoint, order 2, two evaluations a step."""

    method: ClassVar[Method] = RungeKutta(MIDPOINT)


@dataclass(frozen=True)
class Heun(BudgetSolver):
    """Heun's method (explicit trapezoidal rule), order 2, two evaluations a step."""

    method: ClassVar[Method] = RungeKutta(HEUN)


@dataclass(frozen=True)
class ExponentialEuler(BudgetSolver):
    """Exponential Euler (ETD1), order 1, for semilinear fields.

    y1 = e^z y + (1 - e^z) target(t, y), z = -dt/tau. One evaluation a step, exact where the
    target is constant, no step limit; with |target| <= 1 it keeps |y| <= max(|y0|, 1).

    Reference: Hochbruck & Ostermann, Exponential integrators, Acta Numerica 2010, eq. 1.7.
    """

    method: ClassVar[Method] = Relaxation(
        "exponential_euler", lambda z: -torch.expm1(-z), lambda w: 1 - w
    )


@dataclass(frozen=True)
class SemiImplicitEuler(BudgetSolver):
    """Semi-implicit Euler, order 1, for semilinear fields: the leak implicit, the target not.

    y1 = (y + (dt/tau) target(t, y)) / (1 + dt/tau). One evaluation a step, no step limit.
    It is the fused solver of liquid time-constant networks (Hasani et al. 2021, algorithm 1).
    """

    method: ClassVar[Method] = Relaxation(
        "semi_implicit_euler", lambda z: z / (1 + z), lambda w: (1 - w).square()
    )
