"""Solvers whose few coefficients are trained on the fields that they are to solve.

:func:`solvers.train_solver` makes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from torch import nn

from solvers.checks import check_steps
from solvers.gradients.modes import Backpropagation, GradientMode
from solvers.learned.methods import LearnedMethod
from solvers.loop.problem import Problem
from solvers.native import NativeSolver
from solvers.solution import Solution
from solvers.solver import Solver
from solvers.storage import StorageError, read_tensors, write_tensors

_FILE = "learned solver", 1  # the kind of its files, and the version of that


class LearnedSolver(nn.Module, Solver):
    r"""A solver with coefficients that were trained on the fields it is to solve.

    It holds one :class:`LearnedMethod` for each number of evaluations that it was trained for,
    and crosses the whole time span in a single step of one of them. Coefficients that are trained
    for a span are best on it; on others the method still has order 2. Unlike the other solvers it
    is an ``nn.Module``, not a frozen dataclass, so that the coefficients follow the model.

    Only the leak of a semilinear field is free of step limits: boundedness is not guaranteed, as
    it is for exponential Euler, since weights may be negative. States at ``t_eval`` come from the
    cubic through both ends of a step, which is coarse over a whole span: solve from time to time
    instead.

    Args:
        methods: the methods, of one kind, each with another number of evaluations.
        evaluations: the budget; see :meth:`with_steps`. The smallest trained one if None.
        gradient: how a gradient gets back.
        errors: what training measured, by number of evaluations; see :func:`train_solver`.

    Raises:
        ValueError: where the methods are none or not as described, or the budget cannot be met.

    References: Shaul et al. 2023, Bespoke solvers for generative flow models, for the idea of
    training a handful of coefficients of a consistent scheme for one model; Poli et al. 2020,
    Hypersolvers, for training against a tight solver.
    """

    def __init__(
        self,
        methods: Iterable[LearnedMethod],
        evaluations: int | None = None,
        *,
        gradient: GradientMode = Backpropagation(),
        errors: Mapping[int, Mapping[str, float]] | None = None,
    ) -> None:
        super().__init__()
        given = list(methods)
        by_number = {method.stages: method for method in sorted(given, key=lambda x: x.stages)}
        kinds = {method.kind for method in given}
        if len(kinds) != 1 or len(by_number) != len(given):
            raise ValueError(
                "a learned solver needs methods of one kind with different numbers of "
                f"evaluations, not {[(method.kind, method.stages) for method in given]}"
            )
        (self.kind,) = kinds
        self.methods = nn.ModuleDict({str(number): x for number, x in by_number.items()})
        self.gradient = gradient
        self.errors = {int(key): dict(value) for key, value in (errors or {}).items()}
        self.evaluations = min(by_number) if evaluations is None else check_steps(evaluations)
        divisors = [number for number in by_number if self.evaluations % number == 0]
        if not divisors:
            raise ValueError(
                f"this learned solver was trained for {', '.join(self.methods)} evaluations, and "
                f"serves multiples of these, not {evaluations}. Take one of them, or train one: "
                f"solvers.train_solver(problems, evaluations=({evaluations},))"
            )
        largest = divisors[-1]
        steps, method = self.evaluations // largest, by_number[largest]
        self._fixed = NativeSolver(steps, method=method, gradient=gradient)

    @property
    def trained(self) -> tuple[int, ...]:
        """The numbers of evaluations that there are coefficients for."""
        return tuple(int(number) for number in self.methods)

    @property
    def _methods(self) -> list[LearnedMethod]:
        return [cast(LearnedMethod, method) for method in self.methods.values()]

    def solve_problem(self, problem: Problem) -> Solution:
        return self._fixed.solve_problem(problem)

    def with_steps(self, steps: int) -> LearnedSolver:
        """The same coefficients, with a budget of ``steps`` evaluations.

        Where there are coefficients for just that number, one step is made of them. Else the
        largest number that divides it is repeated on equal parts of the span.

        Raises:
            ValueError: where no trained number divides it.
        """
        return LearnedSolver(self._methods, steps, gradient=self.gradient, errors=self.errors)

    def save(self, path: str | Path) -> Path:
        """Write the coefficients and what training measured as one safetensors file.

        Raises:
            OSError: it could not be written; a file that was there is kept.
        """
        errors = {str(number): found for number, found in self.errors.items()}
        parts = {str(method.stages): list(method.parts) for method in self._methods}
        header = {"method": self.kind, "parts": parts, "errors": errors}
        path = Path(path)
        write_tensors(path, *_FILE, header, self.methods.state_dict())
        return path

    @staticmethod
    def load(
        path: str | Path,
        evaluations: int | None = None,
        *,
        gradient: GradientMode = Backpropagation(),
    ) -> LearnedSolver:
        """The solver that :meth:`save` wrote.

        Raises:
            ValueError: there is no such file, or it is broken or none of a learned solver, or
                the solver has no coefficients for so many evaluations.
        """
        try:
            header, tensors = read_tensors(Path(path), *_FILE)
        except StorageError as error:
            raise ValueError(
                f"{error}. Give a file that LearnedSolver.save wrote, or train a solver with "
                "liquid-ode train-solver"
            ) from error
        try:
            methods = [LearnedMethod(header["method"], x) for x in header["parts"].values()]
            solver = LearnedSolver(methods, errors=header["errors"])
            solver.methods.load_state_dict(tensors)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{path} holds no learned solver that this version knows: {error}"
            ) from error
        return LearnedSolver(methods, evaluations, gradient=gradient, errors=solver.errors)

    def __repr__(self) -> str:
        # One line, as the other solvers have, since cells show their solver in theirs.
        return f"LearnedSolver({self.kind}, evaluations={self.evaluations}, trained={self.trained})"
