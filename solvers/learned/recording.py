"""The problems that a model gives its solver, as data to train a solver on."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import torch
from torch import Tensor

from solvers.checks import check_steps, holds
from solvers.fields.base import RelaxationField
from solvers.fields.derivatives import knows_derivative
from solvers.loop.problem import Problem
from solvers.solution import Solution
from solvers.solver import Solver


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

    What it keeps is detached where the field is made of a :class:`solvers.PullbackFunction`, as
    those of liquid cells are; record others under ``torch.no_grad()``.

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
        self.problems: list[Problem] = []
        self._generator = torch.Generator().manual_seed(seed)

    def with_steps(self, steps: int) -> Recorder:
        solver = self.solver.with_steps(steps)
        if solver is self.solver:
            return self
        other = copy(self)
        other.solver = solver
        return other

    def solve_problem(self, problem: Problem) -> Solution:
        solution = self.solver.solve_problem(problem)
        if holds(torch.isfinite(problem.y0)) is not None:  # what is traced is gone once it ends
            kept = replace(problem, y0=problem.y0.detach(), times=None, events=(), dense=False)
            if self.rows is not None and kept.selectable and self.rows < kept.y0.shape[0]:
                rows = torch.randperm(kept.y0.shape[0], generator=self._generator)[: self.rows]
                kept = kept.select(rows.to(kept.y0.device))
            self.problems.append(cast_problem(kept))
        return solution


def cast_problem(
    problem: Problem,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Problem:
    """A detached copy of the problem, in ``dtype`` and on ``device`` if its field can be had so.

    That is so where its function is a :class:`solvers.PullbackFunction`, which tells what it is
    made of.
    """
    field = problem.field
    if not isinstance(field, RelaxationField) or not knows_derivative(field):
        return replace(problem, y0=problem.y0.clone())
    dtype = dtype or problem.y0.dtype

    def copied(values: Tensor) -> Tensor:
        return values.detach().to(device or values.device, dtype, copy=True)

    other = field.with_tensors(*(copied(values) for values in field.tensors))
    return replace(problem, field=other, y0=copied(problem.y0))
