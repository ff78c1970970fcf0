"""The solvers of this package: a method, a step-size rule and a gradient mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar, cast

import torch
from torch import Tensor

from solvers import exponential_tableau, tableau
from solvers.chunks import run_in_chunks
from solvers.events import Event
from solvers.exponential import ExponentialRungeKutta
from solvers.fields import SemilinearField, VectorField
from solvers.finite import all_finite, finite_samples, finite_status, under_transform
from solvers.gradients import Backpropagation, GradientMode
from solvers.integrate import Integration
from solvers.methods import Method, RungeKutta
from solvers.outputs import Times
from solvers.pid import PID
from solvers.precision import promoted
from solvers.relaxation import EXPONENTIAL_EULER, SEMI_IMPLICIT_EULER, relaxation_of
from solvers.solution import Solution, Stats
from solvers.solver import Solver, check_problem, check_steps
from solvers.step_size import BudgetRule, GradientScaled, StepSizeRule, Uniform, Watched
from solvers.taped import solve_taped

Self = TypeVar("Self", bound="NativeSolver")


@dataclass(frozen=True)
class NativeSolver(Solver):
    """A method, the rule that sizes its steps, and the way a gradient gets back.

    A subclass names its ``method``; that is all it takes to add one.

    Args:
        steps: number of steps, at least 1, for :class:`Uniform` and :class:`GradientScaled`;
            None with :class:`PID`, which takes the steps that its tolerances need.
        step_size: the rule.
        gradient: :class:`Backpropagation`, :class:`Checkpointing` or :class:`BacksolveAdjoint`.
        compiled: whether the steps of an error-controlled solve are compiled by torch.compile,
            where no gradient is recorded. The first solve then takes some seconds more; small
            states, whose time goes into starting kernels, are solved faster from then on. (A
            fixed number of steps needs no option: torch.compile of the model follows it.)

    Raises:
        ValueError: where ``steps`` is below 1, missing, or given to a rule that chooses its own;
            where the method has no error estimate and the rule needs one.
    """

    steps: int | None = 5
    step_size: StepSizeRule = Uniform()
    gradient: GradientMode = Backpropagation()
    compiled: bool = False

    method: ClassVar[Method]

    def __post_init__(self) -> None:
        if not isinstance(self.step_size, StepSizeRule):
            raise ValueError(
                "step_size must be a rule such as solvers.Uniform(), solvers.GradientScaled() or "
                f"solvers.PID(rtol=1e-5), not {self.step_size!r}"
            )
        if not isinstance(self.gradient, GradientMode):
            raise ValueError(
                "gradient must be a mode such as solvers.Backpropagation() or "
                f"solvers.Checkpointing(), not {self.gradient!r}"
            )
        self.step_size.check(self.method)
        if self.step_size.uses_budget:
            check_steps(self.steps)
            if self.compiled:
                raise ValueError(
                    "compiled is for error control; a fixed number of steps is compiled with the "
                    "model around it: torch.compile(model)"
                )
        elif self.steps is not None:
            raise ValueError(
                f"{type(self.step_size).__name__} chooses its own number of steps, so steps must "
                f"be None, not {self.steps!r}: bound it with max_steps, or take step_size=Uniform()"
            )

    def solve(
        self,
        field: VectorField,
        y0: Tensor,
        t_span: tuple[float, float] = (0.0, 1.0),
        *,
        t_eval: Tensor | Sequence[float] | None = None,
        event: Event | None = None,
        throw: bool = True,
    ) -> Solution:
        span, asked = check_problem(y0, t_span, t_eval)
        self.method.check(field)
        if y0.numel() == 0:
            return _nothing_to_solve(y0, asked, event)
        times = None
        if isinstance(asked, Tensor):
            times = Times((), span[1] - asked, span[1] - span[0])
        elif asked is not None:
            times = Times(tuple(span[1] - t for t in asked), None, span[1] - span[0])
        integration = Integration(
            self.method,
            self.step_size,
            self.gradient,
            self.steps or 0,
            field,
            span,
            times,
            event,
            compiled=self.compiled,
        )
        if isinstance(self.step_size, BudgetRule):
            if event is not None:
                raise ValueError(
                    "events need error control: take step_size=PID(...), as Dopri5 and Tsit5 do"
                )
            return self._by_budget(integration, y0, throw)
        return self._by_error(integration, y0, throw)

    def _by_error(self, integration: Integration, y0: Tensor, throw: bool) -> Solution:
        """Steps that depend on the data, and states of at least float32."""
        if under_transform():
            raise ValueError(
                "error control chooses its steps by the data, which torch.compile and function "
                "transforms such as vmap cannot follow: take step_size=Uniform() with a number "
                "of steps there"
            )
        dtype = torch.promote_types(y0.dtype, torch.float32)
        if dtype == y0.dtype:
            solution = self.gradient.solve(integration, y0)
        else:
            # Error estimates mean nothing in half precision: the field sees it, the rule does not.
            field = promoted(integration.field, dtype, y0)
            promotion = replace(integration, field=field)
            solution = self.gradient.solve(promotion, y0.to(dtype))
            ys = None if solution.ys is None else solution.ys.to(y0.dtype)
            solution = replace(solution, y=solution.y.to(y0.dtype), ys=ys)
        return solution.throw() if throw else solution

    def _by_budget(self, integration: Integration, y0: Tensor, throw: bool) -> Solution:
        """A number of steps, of which only the result is examined."""
        relaxation = relaxation_of(self.method)
        if relaxation is not None and isinstance(integration.field, SemilinearField):
            integration = replace(integration, method=relaxation)
        solution = None
        if integration.times is None and type(self.gradient) is Backpropagation:
            solution = solve_taped(integration, y0)
        if solution is None:
            solution = run_in_chunks(integration, y0)
        if under_transform() or all_finite(solution.y.detach()):
            return solution
        if throw:
            replace(solution, status=finite_status(finite_samples(solution.y))).throw()
        # Rare, so paid for only here: the same solve again, examined at every step.
        watched = Watched(cast(BudgetRule, integration.rule))
        careful = replace(integration, rule=watched).run(y0)
        stats = replace(careful.stats, nfe=solution.stats.nfe + careful.stats.nfe)
        return replace(careful, stats=stats)

    def with_steps(self: Self, steps: int) -> Self:
        check_steps(steps)
        return replace(self, steps=steps) if self.step_size.uses_budget else self


def _nothing_to_solve(
    y0: Tensor, asked: list[float] | Tensor | None, event: Event | None
) -> Solution:
    """The solution of no samples, or of samples without elements."""
    ys = None if asked is None else y0.expand(len(asked), *y0.shape)
    status = torch.zeros(y0.shape[:1], dtype=torch.int8, device=y0.device)
    event_time = None
    if event is not None:
        event_time = torch.full_like(status, torch.nan, dtype=torch.float32)
    return Solution(y0, ys, Stats(0, 0), status, event_time)


@dataclass(frozen=True)
class Euler(NativeSolver):
    """Explicit Euler, order 1: y1 = y + dt f(t, y).

    The default solver. Its steps adapt to the size of dy/dt (:class:`GradientScaled`); with
    ``step_size=Uniform()`` they are equal. Stable for the leak of a liquid cell where
    dt < 2 tau.
    """

    step_size: StepSizeRule = GradientScaled()
    method: ClassVar[Method] = RungeKutta(tableau.EULER)


@dataclass(frozen=True)
class Midpoint(NativeSolver):
    """Explicit midpoint, order 2, two evaluations a step."""

    method: ClassVar[Method] = RungeKutta(tableau.MIDPOINT)


@dataclass(frozen=True)
class Heun(NativeSolver):
    """Heun's method (explicit trapezoidal rule), order 2, two evaluations a step."""

    method: ClassVar[Method] = RungeKutta(tableau.HEUN)


@dataclass(frozen=True)
class Ralston(NativeSolver):
    """Ralston's method, order 2, two evaluations a step, the smallest error bound of its order."""

    method: ClassVar[Method] = RungeKutta(tableau.RALSTON)


@dataclass(frozen=True)
class RK4(NativeSolver):
    """The classic Runge-Kutta method, order 4, four evaluations a step."""

    method: ClassVar[Method] = RungeKutta(tableau.RK4)


@dataclass(frozen=True)
class HeunEuler(NativeSolver):
    """The pair Heun-Euler 2(1), error-controlled per sample, two evaluations a step."""

    steps: int | None = None
    step_size: StepSizeRule = PID()
    method: ClassVar[Method] = RungeKutta(tableau.HEUN)


@dataclass(frozen=True)
class Bosh3(NativeSolver):
    """Bogacki-Shampine 3(2), error-controlled per sample, three evaluations a step."""

    steps: int | None = None
    step_size: StepSizeRule = PID()
    method: ClassVar[Method] = RungeKutta(tableau.BOSH3)


@dataclass(frozen=True)
class Dopri5(NativeSolver):
    """Dormand-Prince 5(4), error-controlled per sample, six evaluations a step."""

    steps: int | None = None
    step_size: StepSizeRule = PID()
    method: ClassVar[Method] = RungeKutta(tableau.DOPRI5)


@dataclass(frozen=True)
class Tsit5(NativeSolver):
    """Tsitouras 5(4), error-controlled per sample, six evaluations a step."""

    steps: int | None = None
    step_size: StepSizeRule = PID()
    method: ClassVar[Method] = RungeKutta(tableau.TSIT5)


@dataclass(frozen=True)
class ExponentialEuler(NativeSolver):
    """Exponential Euler (ETD1), order 1, for semilinear fields.

    y1 = e^z y + (1 - e^z) target(t, y), z = -dt/tau. One evaluation a step, exact where the
    target is constant, no step limit; with |target| <= 1 it keeps |y| <= max(|y0|, 1).

    Reference: Hochbruck & Ostermann, Exponential integrators, Acta Numerica 2010, eq. 1.7.
    """

    method: ClassVar[Method] = EXPONENTIAL_EULER


@dataclass(frozen=True)
class ETDRK2(NativeSolver):
    """Exponential Runge-Kutta of order 2 (ETD2RK), for semilinear fields, two evaluations a step.

    With a = e^z y + (1 - e^z) u(y), z = -dt/tau and u the target,
    y1 = a + ((1 + z - e^z)/z) (u(a) - u(y)). No step limit from the leak. Its difference from a
    estimates the error, so ``ETDRK2(steps=None, step_size=PID(rtol=1e-4))`` controls its steps
    per sample.

    Reference: Cox & Matthews 2002, Exponential time differencing for stiff systems, eqs. 20-22.
    """

    method: ClassVar[Method] = ExponentialRungeKutta("etdrk2", exponential_tableau.ETD2RK)


@dataclass(frozen=True)
class ETDRK4(NativeSolver):
    """Exponential Runge-Kutta of order 4, for semilinear fields, four evaluations a step.

    No step limit from the leak. With ``ETDRK4(steps=None, step_size=PID(rtol=1e-4))`` an embedded
    result of order 2 controls the steps per sample.

    Reference: Krogstad 2005, Generalized integrating factor methods for stiff PDEs, eq. 51.
    """

    method: ClassVar[Method] = ExponentialRungeKutta("etdrk4", exponential_tableau.ETD4RK)


@dataclass(frozen=True)
class SemiImplicitEuler(NativeSolver):
    """Semi-implicit Euler, order 1, for semilinear fields: the leak implicit, the target not.

    y1 = (y + (dt/tau) target(t, y)) / (1 + dt/tau). One evaluation a step, no step limit.
    It is the fused solver of liquid time-constant networks (Hasani et al. 2021, algorithm 1).
    """

    method: ClassVar[Method] = SEMI_IMPLICIT_EULER
