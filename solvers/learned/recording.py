"""The problems that a model gives its solver, as data to train a solver on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvers.fields.base import PullbackField, VectorField
from solvers.fields.batch_parts import Rows, is_selectable, select
from solvers.loop.events import Event
from solvers.solution import Solution
from solvers.solver import Solver, check_steps
from solvers.transforms import under_transform


@dataclass(frozen=True)
class RecordedProblem:
    """dy/dt = field(t, y) from y0 over ``t_span``.

    Attributes:
        field: the vector field.
        y0: initial state ``(B, ...)``.
        t_span: (t0, t1).
        steps: the budget that the solver had been given with ``with_steps``, if any.
    """

    field: VectorField
    y0: Tensor
    t_span: tuple[float, float] = (0.0, 1.0)
    steps: int | None = None

    @property
    def selectable(self) -> bool:
        """Whether the field can be asked for a part of the batch."""
        return is_selectable(self.field)

    def select(self, rows: Rows) -> RecordedProblem:
        """The problem of some of the samples; of a selectable one."""
        return replace(self, field=select(self.field, rows, self.y0.ndim), y0=self.y0[rows])


class Recorder(Solver):
    """Solves as another solver does, and keeps what it was asked to solve.

    A model that is made with it shows the fields of its cells in a forward pass:

    >>> import torch, solvers
    >>> from liquid_ode import LiquidCell
    >>> recorder = solvers.Recorder(solvers.Euler())
    >>> cell = LiquidCell(6, 8, solver=recorder)
    >>> with torch.no_grad():
    ...     _ = cell(torch.randn(100, 6))
    >>> recorder.problems[0].y0.shape
    torch.Size([100, 8])

    What it keeps is detached where the field is a :class:`solvers.PullbackField`, as those of
    liquid cells are; record others under ``torch.no_grad()``.

    Args:
        solver: solves.
        rows: the most samples to keep of a problem, drawn at random; None for all. Of a field
            that cannot be asked for a part of its batch, all are kept.
        seed: of that draw.

    Attributes:
        problems: what was asked so far; one list for all that ``with_steps`` gives.
    """

    def __init__(self, solver: Solver, rows: int | None = None, seed: int = 0) -> None:
        if not isinstance(solver, Solver):
            raise ValueError(f"a recorder needs a solver to solve with, not {solver!r}")
        self.solver = solver
        self.rows = None if rows is None else check_steps(rows, "rows")
        self.steps: int | None = None
        self.problems: list[RecordedProblem] = []
        self._generator = torch.Generator().manual_seed(seed)

    def with_steps(self, steps: int) -> Recorder:
        other = Recorder(self.solver.with_steps(steps), self.rows)
        other.steps = steps
        other.problems, other._generator = self.problems, self._generator
        return other

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
        solution = self.solver.solve(field, y0, t_span, t_eval=t_eval, event=event, throw=throw)
        if not under_transform():  # whose tensors are not there any more once it ends
            problem = RecordedProblem(field, y0.detach(), t_span, self.steps)
            self.problems.append(self._kept(problem))
        return solution

    def _kept(self, problem: RecordedProblem) -> RecordedProblem:
        """Some samples of the problem, detached from the model that may change."""
        count = problem.y0.shape[0]
        if self.rows is not None and self.rows < count and problem.selectable:
            rows = torch.randperm(count, generator=self._generator)[: self.rows]
            problem = problem.select(rows.to(problem.y0.device))
        return cast_problem(problem)


def cast_problem(
    problem: RecordedProblem,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> RecordedProblem:
    """A detached copy of the problem, in ``dtype`` and on ``device`` if its field can be had so.

    That is so for a :class:`solvers.PullbackField`, which tells what it is made of.
    """
    field = problem.field
    if not isinstance(field, PullbackField):
        return replace(problem, y0=problem.y0.clone())
    dtype = dtype or problem.y0.dtype

    def copied(values: Tensor) -> Tensor:
        return values.detach().to(device or values.device, dtype, copy=True)

    rate = torch.as_tensor(field.rate)
    other = field.with_inputs(copied(rate), *(copied(values) for values in field.inputs))
    return replace(problem, field=other, y0=copied(problem.y0))
