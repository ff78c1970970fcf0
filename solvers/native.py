"""The solvers of this package: a method, a step-size rule and a gradient mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from solvers.checks import check_flag, check_restarts, check_steps
from solvers.fields.base import VectorField, fitted
from solvers.fields.wrappers import OneSystemsEvent, as_one_system, in_half_precision
from solvers.gradients.modes import Backpropagation, GradientMode
from solvers.loop.crossings import Stops, gather_crossings
from solvers.loop.integration import Integration
from solvers.loop.problem import Problem
from solvers.methods.base import Method
from solvers.methods.interpolation import Path, line
from solvers.methods.pieces import Piece
from solvers.path import SolutionPath
from solvers.solution import Solution, Stats, all_finite, all_succeeded, batch_shape
from solvers.solver import Solver, Span
from solvers.step_size.pid import PID
from solvers.step_size.rules import BudgetRule, Examined, StepSizeRule, Tolerance, Uniform
from solvers.transcription import Transcription

Self = TypeVar("Self", bound="NativeSolver")
BACKPROPAGATION = Backpropagation()


@dataclass(frozen=True, init=False, repr=False)
class NativeSolver(Solver):
    """A method, the rule that sizes its steps, and the way a gradient gets back.

    A solver of its own name is made by ``class Name(NativeSolver, method=..., step_size=...)``,
    where the rule is the one that it takes unless told otherwise.

    Args:
        steps: so many steps, by the solver's own rule if it takes a number, else equal ones.
        method: how one step is made.
        rtol, atol: tolerances, for steps sized by their error (:class:`PID`).
        step_size: the rule, in place of these.
        gradient: :class:`Backpropagation` (which None is), :class:`Checkpointing` or
            :class:`BacksolveAdjoint`.
        compiled: whether the steps of an error-controlled solve are compiled by torch.compile,
            where no gradient is recorded. The first solve then takes some seconds more; small
            states, whose time goes into starting kernels, are solved faster from then on. (A
            fixed number of steps needs no option: torch.compile of the model follows it.)
            torch.compile keeps 8 variants, of fields above all, in a process; what comes after
            those runs as it would without.

    Raises:
        ValueError: where an option is not as described, or two contradict each other; where the
            method has no error estimate and the rule needs one.
    """

    method: Method
    step_size: StepSizeRule
    gradient: GradientMode
    compiled: bool

    own: ClassVar[tuple[Method | None, StepSizeRule]] = (None, Uniform())

    def __init_subclass__(
        cls, method: Method | None = None, step_size: StepSizeRule | None = None, **more: Any
    ) -> None:
        super().__init_subclass__(**more)
        cls.own = (method or cls.own[0], step_size or cls.own[1])
        dataclass(frozen=True, init=False, repr=False)(cls)

    def __init__(
        self,
        steps: int | None = None,
        *,
        method: Method | None = None,
        rtol: Tolerance | None = None,
        atol: Tolerance | None = None,
        step_size: StepSizeRule | None = None,
        gradient: GradientMode | None = None,
        compiled: bool = False,
    ) -> None:
        own_method, own_rule = self.own
        # Read here: a default that is an object is no value that torch.compile can trace.
        gradient = BACKPROPAGATION if gradient is None else gradient
        method = method or own_method
        if not isinstance(method, Method):
            raise ValueError(f"method must be a solvers.Method, not {method!r}")
        if not isinstance(gradient, GradientMode):
            raise ValueError(
                "gradient must be a mode such as solvers.Backpropagation() or "
                f"solvers.Checkpointing(), not {gradient!r}"
            )
        check_flag("compiled", compiled)
        rule = _rule(own_rule, step_size, steps, rtol, atol)
        rule.check(method)
        gradient.check(method)
        if compiled and not rule.controlled:
            raise ValueError(
                "compiled is for error control; a fixed number of steps is compiled with the "
                "model around it: torch.compile(model)"
            )
        if compiled and not method.compilable:
            raise ValueError(
                f"{type(self).__name__} solves with Jacobians, which compiled=True cannot compile: "
                "leave it out"
            )
        for name, value in zip(
            ("method", "step_size", "gradient", "compiled"),
            (method, rule, gradient, compiled),
            strict=True,
        ):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        method, rule = self.own
        parts = [] if self.method == method else [f"method={self.method!r}"]
        own: Any = self.step_size
        if isinstance(own, BudgetRule) and own == rule.with_steps(own.steps):
            parts.append(f"steps={own.steps}")
        elif isinstance(own, PID) and own == PID(own.rtol, own.atol) and rule.controlled:
            parts += [f"{name}={_shown(getattr(own, name))}" for name in ("rtol", "atol")]
        else:
            parts.append(f"step_size={own!r}")
        if self.gradient != Backpropagation():
            parts.append(f"gradient={self.gradient!r}")
        parts += ["compiled=True"] if self.compiled else []
        return f"{type(self).__name__}({', '.join(parts)})"

    def with_steps(self: Self, steps: int) -> Self:
        rule = self.step_size.with_steps(check_steps(steps))
        return self if rule is self.step_size else replace(self, step_size=rule)

    def solve_chain(
        self,
        fields: Sequence[VectorField],
        y0: Tensor,
        t_span: Span = (0.0, 1.0),
        restarts: Tensor | None = None,
    ) -> Tensor:
        if len(fields) > 1 and isinstance(y0, Tensor) and y0.ndim > 1 and y0.numel():
            check_restarts(restarts, len(fields), y0)
            asked, ends = Transcription.of(fields[0], y0, t_span), None
            for field in fields:
                self.method.check(field)
            if asked.clock is None and asked.layout is None:
                own = [fitted(field, y0) for field in fields]
                ends = self.gradient.chain(self._integration(asked.problem), own, restarts)
            # Where one is not finite: one by one, to say which sample of which problem, and why.
            if ends is not None and all_finite(ends.detach()):
                return ends
        return super().solve_chain(fields, y0, t_span, restarts)

    def _integration(self, problem: Problem) -> Integration:
        rule = self.step_size
        if problem.events and isinstance(rule, BudgetRule):
            rule = Examined(rule)  # since samples end by themselves
        return Integration(problem, self.method, rule, compiled=self.compiled)

    def solve_problem(self, problem: Problem) -> Solution:
        self.method.check(problem.field)
        if problem.layout is not None:
            rule = self.step_size.laid_out(problem.layout)
            if rule is not self.step_size:
                return replace(self, step_size=rule).solve_problem(replace(problem, layout=None))
        rule, y0 = self.step_size, problem.y0
        if y0.numel() == 0:
            return _nothing_to_solve(problem)
        if problem.events and not (rule.controlled or isinstance(rule, BudgetRule)):
            raise ValueError(
                "events need steps that are examined one by one: a step-size rule with error "
                f"control or a BudgetRule, which {type(rule).__name__} is not"
            )
        if y0.ndim < 2 or rule.shared:
            return _one_system(self, problem)
        return self._solve_batch(problem)

    def _solve_batch(self, problem: Problem) -> Solution:
        if self.step_size.controlled or problem.events:
            if torch.compiler.is_compiling():
                from solvers import beside_the_graph

                found: Solution = beside_the_graph.error_controlled(
                    self._in_full_precision, problem
                )
                return found
            return self._in_full_precision(problem)
        return self.gradient.solve(self._integration(problem))

    def _in_full_precision(self, problem: Problem) -> Solution:
        """Errors and crossings mean nothing in half precision: the field sees it, the rest not."""
        y0 = problem.y0
        dtype = torch.promote_types(y0.dtype, torch.float32)
        if dtype == y0.dtype:
            return self.gradient.solve(self._integration(problem))
        field = in_half_precision(problem.field, y0.dtype, dtype)
        integration = self._integration(replace(problem, field=field, y0=y0.to(dtype)))
        rule = integration.rule.with_rounding(torch.finfo(y0.dtype).eps)
        return self.gradient.solve(replace(integration, rule=rule)).mapped(
            lambda states: states.to(y0.dtype)
        )


def _shown(tolerance: Any) -> str:
    return f"{tolerance:g}" if isinstance(tolerance, (int, float)) else repr(tolerance)


def _rule(
    own: StepSizeRule,
    given: StepSizeRule | None,
    steps: int | None,
    rtol: Tolerance | None,
    atol: Tolerance | None,
) -> StepSizeRule:
    """The rule that the options of a solver name."""
    if given is not None and not isinstance(given, StepSizeRule):
        raise ValueError(
            "step_size must be a rule such as solvers.Uniform(5), solvers.GradientScaled(5) or "
            f"solvers.PID(rtol=1e-5), not {given!r}"
        )
    tolerances = rtol is not None or atol is not None
    if steps is not None and tolerances:
        raise ValueError("steps and rtol or atol contradict each other: give one or the other")
    rule = given or own
    if tolerances:
        if given is None and not rule.controlled:
            rule = PID()
        return rule.with_tolerances(rtol, atol)
    if steps is None:
        return rule
    if rule.controlled and given is None:
        rule = Uniform()
    if not isinstance(rule, BudgetRule):
        raise ValueError(
            f"{type(rule).__name__} chooses its own number of steps, so steps={steps!r} means "
            "nothing to it: bound it with max_steps, or leave step_size out"
        )
    return rule.with_steps(steps)


def _one_system(solver: NativeSolver, problem: Problem) -> Solution:
    """The solution where all of the state takes the same steps, as one sample."""
    y0, times = problem.y0, problem.times
    shape = y0.shape
    if times is not None and not times.shared:
        raise ValueError(
            "with PID(shared=True) t_eval has shape (M,), the same for all samples, as "
            "then is the time span"
        )
    events = tuple(
        replace(event, function=OneSystemsEvent(event.function, shape)) for event in problem.events
    )
    field = as_one_system(problem.field, shape)
    state = y0.reshape(1, *(shape or (1,)))
    system = replace(problem, field=field, y0=state, events=events)
    solution = solver._solve_batch(system)
    stats, batch = solution.stats, batch_shape(y0)

    path = solution.path

    def unbatched(states: Tensor) -> Tensor:  # (1, ...) or (M, 1, ...)
        return states.reshape((*states.shape[: states.ndim - state.ndim], *shape))

    def for_all(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[0].expand(batch)

    return replace(
        solution,
        y=solution.y.reshape(shape),
        ys=None if solution.ys is None else solution.ys.reshape(-1, *shape),
        stats=Stats(*(int(getattr(stats, each.name)) for each in dataclass_fields(stats))),
        status=solution.status[0].expand(batch),
        event_time=for_all(solution.event_time),
        event_index=for_all(solution.event_index),
        events=tuple(each.mapped(lambda x: x.reshape(-1, *shape)) for each in solution.events),
        path=None if path is None else replace(path, batched=False).mapped(unbatched),
    )


def _nothing_to_solve(problem: Problem) -> Solution:
    """The solution of no samples, or of samples without elements."""
    y0, times = problem.y0, problem.times
    ys = None if times is None else y0.expand(len(times), *y0.shape)
    solution = Solution(y0, ys, Stats(0, 0), all_succeeded(y0), succeeded=True)
    if problem.dense:
        t0, t1 = problem.t_span
        still = Piece(Path(y0, t1 - t0, line, (y0,)), None, t1)
        path = SolutionPath((still,), y0, problem.t_span, batched=y0.ndim > 1)
        solution = replace(solution, path=path)
    if not problem.events:
        return solution
    dtype = torch.promote_types(y0.dtype, torch.float32)
    stops = Stops.none(solution.status, dtype)
    events = gather_crossings(problem.events, (), y0 if y0.ndim > 1 else y0.unsqueeze(0))
    return replace(solution, event_time=stops.times, event_index=stops.which, events=events)
