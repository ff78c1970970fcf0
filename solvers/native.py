"""The solvers of this package: a method, a step-size rule and a gradient mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar, cast

import torch
from torch import Tensor

from solvers.fields.base import QuasilinearField, SemilinearField, VectorField, check_rate
from solvers.fields.half_precision import promoted
from solvers.gradients.cache_chunks import run_in_chunks
from solvers.gradients.hand_written import solve_chain_taped, solve_taped
from solvers.gradients.modes import Backpropagation, GradientMode
from solvers.loop.events import Event
from solvers.loop.integration import Integration
from solvers.loop.saved_times import Times
from solvers.methods.base import Method
from solvers.methods.relaxation import relaxation_of
from solvers.solution import Solution, Stats
from solvers.solver import Solver, check_problem, check_steps
from solvers.step_size.pid import PID
from solvers.step_size.rules import BudgetRule, StepSizeRule, Uniform, Watched
from solvers.transforms import all_finite, finite_samples, finite_status, under_transform

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
            torch.compile keeps 8 variants, of fields above all, in a process; what comes after
            those runs as it would without.

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
        self.gradient.check(self.method)
        if self.step_size.uses_budget:
            if self.steps is None:
                raise ValueError(
                    f"{type(self.step_size).__name__} needs a number of steps, such as steps=5"
                )
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
        if event is not None and not isinstance(event, Event):
            raise ValueError(f"event must be solvers.Event(function), not {event!r}")
        if isinstance(field, SemilinearField | QuasilinearField):
            check_rate(field, y0)
        if y0.numel() == 0:
            return _nothing_to_solve(y0, asked, event)
        times = None
        if isinstance(asked, Tensor):
            times = Times((), span[1] - asked)
        elif asked is not None:
            times = Times(tuple(span[1] - t for t in asked), None)
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

    def solve_chain(
        self,
        fields: Sequence[VectorField],
        y0: Tensor,
        t_span: tuple[float, float] = (0.0, 1.0),
    ) -> Tensor:
        if len(fields) > 1 and isinstance(self.step_size, BudgetRule) and y0.numel():
            span, _ = check_problem(y0, t_span, None)
            ends = self._chain_taped(fields, y0, span)
            # Where one is not finite: one by one, to say which sample of which problem, and why.
            if ends is not None and all_finite(ends.detach()):
                return ends
        return super().solve_chain(fields, y0, t_span)

    def _chain_taped(
        self, fields: Sequence[VectorField], y0: Tensor, span: tuple[float, float]
    ) -> Tensor | None:
        if type(self.gradient) is not Backpropagation:
            return None
        for field in fields:
            self.method.check(field)
        integration = Integration(
            self.method, self.step_size, self.gradient, self.steps or 0, fields[0], span
        )
        return solve_chain_taped(integration, fields, y0)

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
            rule = integration.rule
            if isinstance(rule, PID):
                rule = rule.at_least(torch.finfo(y0.dtype).eps)
            promotion = replace(integration, field=field, rule=rule)
            solution = self.gradient.solve(promotion, y0.to(dtype))
            ys = None if solution.ys is None else solution.ys.to(y0.dtype)
            solution = replace(solution, y=solution.y.to(y0.dtype), ys=ys)
        return solution.throw() if throw else solution

    def _by_budget(self, integration: Integration, y0: Tensor, throw: bool) -> Solution:
        """A number of steps, of which only the result is examined."""
        relaxation = relaxation_of(self.method)
        if relaxation is not None and isinstance(
            integration.field, SemilinearField | QuasilinearField
        ):
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
