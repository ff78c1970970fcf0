"""The solver interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.checks import check_restarts
from solvers.fields.base import VectorField
from solvers.loop.events import Event
from solvers.loop.jumps import solve_between_jumps
from solvers.loop.problem import Problem
from solvers.solution import Solution, SolverError, State
from solvers.transcription import Transcription

Span = tuple[float | Tensor, float | Tensor] | Tensor


class Solver(ABC):
    """Solves dy/dt = field(t, y) over a time span. An immutable value without per-solve state.

    A subclass gives :meth:`solve_problem` and :meth:`with_steps`.
    """

    def solve(
        self,
        field: Callable[..., State],
        y0: State,
        t_span: Span = (0.0, 1.0),
        *,
        t_eval: Tensor | Sequence[float] | None = None,
        event: Event | Sequence[Event] | None = None,
        dense: bool = False,
        jump_times: Tensor | Sequence[float] | None = None,
        args: tuple[Any, ...] = (),
        throw: bool = True,
    ) -> Solution[State]:
        """Integrate from t0 to t1.

        Args:
            field: dy/dt = field(t, y); see :class:`solvers.VectorField`.
            y0: initial state ``(B, ...)``, floating point or complex; the first axis is the
                batch. One of shape ``(d,)`` or ``()`` is one system. Or tuples, lists and dicts
                of such tensors, which the field is given and returns: a batch where all have the
                same first axis and one has more, else one system. t then has as many axes as the
                tensor that has most.
            t_span: (t0, t1), each a number, or a tensor ``()``, or ``(B,)`` for a time of each
                sample. Where t1 < t0 the solve runs backwards. Gradients flow to both.
            t_eval: times within the span, in its order, at which to return the state as well;
                with the native solvers also ``(M, B)``, the times of each sample. Gradients flow
                to them.
            event: what is looked for along the way, an :class:`solvers.Event` or a sequence of
                them: where a function of the state crosses zero, which ends the sample there
                unless the event says otherwise; for the native solvers.
            dense: return the path too, ``solution.path(t)`` for any times later; for the native
                solvers.
            jump_times: times at which the field jumps. A step ends at each and the solve starts
                anew there; the field is not evaluated at the jump itself but just inside of each
                side. In any order; those outside of the span are left out. For solvers driven by
                tolerances.
            args: what the field, and an event's function, takes after t and y. Gradients flow to
                its tensors.
            throw: raise where a sample fails; False returns the statuses instead. Under
                torch.compile and function transforms such as vmap the solvers with a budget of
                steps do not look for failures, since that depends on the data.

        Raises:
            SolverError: where samples fail and ``throw`` is set.
            ValueError: where an argument is not as described.
        """
        asked = Transcription.of(
            field, y0, t_span, t_eval=t_eval, event=event, args=args, dense=dense,
            jump_times=jump_times,
        )  # fmt: skip
        solution = asked.solution(solve_between_jumps(self, asked.problem))
        return solution.throw("throw=False returns the statuses instead.") if throw else solution

    @abstractmethod
    def solve_problem(self, problem: Problem) -> Solution:
        """The solution, with its statuses; without throwing."""

    def solve_chain(
        self,
        fields: Sequence[VectorField],
        y0: Tensor,
        t_span: Span = (0.0, 1.0),
        restarts: Tensor | None = None,
    ) -> Tensor:
        """The ends of several problems, each of which starts where the one before it ended.

        It is what a recurrent network over a sequence solves: one field for every input.

        Args:
            fields: at least one, each for states like ``y0``.
            y0: initial state ``(B, ...)`` of the first problem.
            t_span: (t0, t1) of every problem.
            restarts: bool ``(len(fields), B, 1, ..., 1)`` with the axes of a state, without B if
                it has none: which samples start a problem from zero instead.

        Returns:
            ``(len(fields), *y0.shape)``.

        Raises:
            SolverError: where samples fail.
            ValueError: where an argument is not as described.
        """
        if not fields:
            raise ValueError("fields must have at least one field")
        if not isinstance(y0, Tensor) or not y0.is_floating_point():
            raise ValueError("the state of a chain must be one floating-point tensor")
        check_restarts(restarts, len(fields), y0)
        ends = []
        for index, field in enumerate(fields):
            if restarts is not None:
                y0 = y0.masked_fill(restarts[index], 0)  # not a product: one may be NaN
            try:
                y0 = self.solve_problem(Transcription.of(field, y0, t_span).problem).throw().y
            except SolverError as error:
                if len(fields) == 1:
                    raise
                message = f"problem {index + 1} of {len(fields)}: {error}"
                raise SolverError(message, error.solution, index) from error
            ends.append(y0)
        return ends[0].unsqueeze(0) if len(ends) == 1 else torch.stack(ends)

    @abstractmethod
    def with_steps(self, steps: int) -> Solver:
        """The same solver with a budget of ``steps`` steps.

        A solver driven by a tolerance has no budget and returns itself.
        """
