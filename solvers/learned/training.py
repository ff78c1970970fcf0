"""Training the coefficients of a learned solver against a tight one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from solvers.catalogue import Euler, Tsit5
from solvers.checks import check_steps
from solvers.fields.base import SemilinearField
from solvers.learned.methods import LearnedMethod
from solvers.learned.recording import cast_problem
from solvers.learned.solver import LearnedSolver
from solvers.loop.problem import Problem
from solvers.native import NativeSolver
from solvers.solution import SUCCESS
from solvers.solver import Solver
from solvers.step_size.rules import Uniform

Residuals = Callable[[Tensor], Iterable[Tensor]]  # of each problem, out of the coefficients
_HELD_OUT = 4  # of so many samples, one is held out


def train_solver(
    problems: Sequence[Problem],
    evaluations: Iterable[int] = (3, 5, 7),
    *,
    held_out: Sequence[Problem] | None = None,
    starts: int = 2,
    iterations: int = 40,
    seed: int = 0,
) -> LearnedSolver:
    r"""Fit a solver's coefficients to the fields that it is to solve.

    For each number of evaluations the coefficients minimise

        mean over the problems of  sum |y(t1) - reference|^2 / sum |reference|^2,

    by Levenberg-Marquardt steps, whose Jacobian comes from finite differences: of a field only
    its values are asked. A step that does not lower the loss is not taken, so what comes out is
    never worse on the problems than the untrained method it started from. The reference is
    Tsitouras 5(4) with tolerances near rounding, in float64 where the field can be had in it
    (:class:`solvers.PullbackFunction`, as those of liquid cells are) and the device knows it.

    Semilinear fields get exponential methods, others, and mixtures, explicit ones; see
    :class:`solvers.LearnedMethod`.

    Few large problems train faster than many small ones: a few hundred samples of each field are
    plenty for a few dozen coefficients. What comes out is meant for fields like these: on others,
    such as far stiffer ones, it may be worse than methods that know none.

    Args:
        problems: what to train on; see :class:`solvers.Recorder`.
        evaluations: how many evaluations a solve may make, each at least 2.
        held_out: what to measure on; None sets every fourth sample aside (of fields that cannot
            be asked for a part of their batch, every fourth problem).
        starts: how many starting points are tried, the untrained method first.
        iterations: the most steps from each.
        seed: of the other starting points.

    Returns:
        the solver, on the CPU and in float32. Its ``errors`` give, for each number of
        evaluations, the relative error (the root of the loss) ``training``, ``held_out`` and, on
        what was held out too, of the ``untrained`` method, of ``euler`` and ``uniform_euler``.

    Raises:
        ValueError: where there is nothing to train on or to measure on, a number is wrong, or so
            few evaluations cannot solve the problems at all.
        SolverError: where a problem cannot be solved tightly.

    References: see :class:`solvers.LearnedSolver`. Marquardt 1963, An algorithm for least-squares
    estimation of nonlinear parameters.
    """
    numbers = sorted(set(evaluations))
    check_steps(starts, "starts")
    check_steps(iterations, "iterations")
    if not numbers:
        raise ValueError("evaluations must name at least one number, such as (3, 5, 7)")
    semilinear = all(isinstance(problem.field, SemilinearField) for problem in problems)
    kind = "exponential" if semilinear else "explicit"
    untrained = {number: LearnedMethod.of(kind, number) for number in numbers}
    training, measured = ([_Case.of(x) for x in part] for part in _split(problems, held_out))
    generator = torch.Generator().manual_seed(seed)
    methods, errors = [], {}
    for number, start in untrained.items():
        method = _fitted(LearnedMethod.of(kind, number), training, starts, iterations, generator)
        solver = NativeSolver(1, method=method)
        errors[number] = {"training": _error(solver, training)}
        if errors[number]["training"] == math.inf:
            raise ValueError(
                f"{number} evaluations are too few for these problems: the untrained method leaves "
                "the finite numbers. Ask for more evaluations, or split the time spans"
            )
        methods.append(method)
        compared = {
            "held_out": solver,
            "untrained": NativeSolver(1, method=start),
            "euler": Euler(number),
            "uniform_euler": Euler(step_size=Uniform(number)),
        }
        errors[number] |= {name: _error(solver, measured) for name, solver in compared.items()}
    return LearnedSolver(methods, errors=errors)


def relative_errors(solvers: Mapping[str, Solver], problems: Sequence[Problem]) -> dict[str, float]:
    """The error of solvers on problems, as :func:`train_solver` measures it.

    That is the root of the mean over the problems of sum |y(t1) - reference|^2 over
    sum |reference|^2; infinity where a solve leaves the finite numbers.

    Raises:
        ValueError: where there are no problems.
        SolverError: where a problem cannot be solved tightly.
    """
    if not problems:
        raise ValueError("relative errors need at least one problem")
    cases = [_Case.of(problem) for problem in problems]
    return {name: _error(solver, cases) for name, solver in solvers.items()}


def _split(
    problems: Sequence[Problem], held_out: Sequence[Problem] | None
) -> tuple[Sequence[Problem], Sequence[Problem]]:
    """What to train on, and what to measure on."""
    train, test = problems, held_out
    if test is None:
        train, test, whole = [], [], 0
        for problem in problems:
            if problem.selectable and problem.y0.shape[0] >= _HELD_OUT:
                rows = torch.arange(problem.y0.shape[0], device=problem.y0.device)
                train.append(problem.select(rows[rows % _HELD_OUT > 0]))
                test.append(problem.select(rows[::_HELD_OUT]))
            else:
                whole += 1
                (test if whole % _HELD_OUT == 0 else train).append(problem)
    if not train or not test:
        raise ValueError(
            f"there are {len(train)} problems to train on and {len(test)} held out, and each "
            "needs at least one: record more, or give held_out=..."
        )
    return train, test


@dataclass(frozen=True)
class _Case:
    """A problem with its solution."""

    problem: Problem
    reference: Tensor
    size: float
    """The norm of the reference, which errors are relative to."""

    @classmethod
    def of(cls, problem: Problem) -> _Case:
        wide = problem.y0.device.type != "mps"
        problem = cast_problem(problem, torch.float64 if wide else None)
        tolerance = max(1e-9, 10 * torch.finfo(problem.y0.dtype).eps)
        tight = Tsit5(rtol=tolerance, atol=tolerance)
        with torch.no_grad():
            reference = tight.solve(problem.field, problem.y0, problem.t_span).y
        size = float(torch.linalg.vector_norm(reference))
        return cls(problem, reference, max(size, torch.finfo(torch.float32).tiny))

    @torch.no_grad()
    def residual(self, solver: Solver) -> Tensor:
        """The errors of all elements over the norm of the reference, in float64 on the CPU."""
        problem = self.problem
        solution = solver.solve(problem.field, problem.y0, problem.t_span, throw=False)
        residual = (solution.y - self.reference).flatten().cpu().double() / self.size
        failed = bool((solution.status != SUCCESS).any())  # whose states are the last finite ones
        return torch.full_like(residual, math.inf) if failed else residual


def _loss(residuals: Iterable[Tensor]) -> float:
    """The mean over the problems of the squared relative error; infinity where one failed."""
    losses = [float(residual.square().sum()) for residual in residuals]
    mean = sum(losses) / len(losses)
    return mean if math.isfinite(mean) else math.inf


def _error(solver: Solver, cases: Sequence[_Case]) -> float:
    return math.sqrt(_loss(case.residual(solver) for case in cases))


def _fitted(
    method: LearnedMethod,
    cases: Sequence[_Case],
    starts: int,
    iterations: int,
    generator: torch.Generator,
) -> LearnedMethod:
    """The method, in float32, with the coefficients that solve the cases best."""
    wide = all(case.problem.y0.dtype == torch.float64 for case in cases)
    dtype = torch.float64 if wide else torch.float32
    solver = NativeSolver(1, method=method.to(dtype))

    def residuals(vector: Tensor) -> Iterator[Tensor]:
        vector_to_parameters(vector.to(dtype), method.parameters())
        return (case.residual(solver) for case in cases)

    start = parameters_to_vector(method.parameters()).double()
    starting = [start]
    for _ in range(starts - 1):
        noise = torch.randn(len(start), generator=generator, dtype=start.dtype)
        starting.append(start + 0.3 * noise)
    change = torch.finfo(dtype).eps ** 0.5
    ends = [_descend(residuals, vector, iterations, change) for vector in starting]
    vector_to_parameters(min(ends, key=lambda end: _loss(residuals(end))), method.parameters())
    return method.float()


def _descend(residuals: Residuals, vector: Tensor, iterations: int, change: float) -> Tensor:
    """Where so many Levenberg-Marquardt steps lead, or fewer where they hardly help."""
    loss, damping, idle = _loss(residuals(vector)), 1e-3, 0
    for _ in range(iterations if loss < math.inf else 0):
        normal, gradient = _equations(residuals, vector, change)
        for _ in range(12):
            scaled = damping * (normal.diagonal() + 1e-12 * normal.diagonal().max())
            tried = vector - torch.linalg.solve(normal + scaled.diag(), gradient)
            lower = _loss(residuals(tried))
            if lower < loss:
                break
            damping *= 4
        else:
            return vector
        idle = idle + 1 if lower > 0.998 * loss else 0
        vector, loss, damping = tried, lower, max(damping / 5, 1e-9)
        if idle == 3:
            return vector
    return vector


def _equations(residuals: Residuals, vector: Tensor, change: float) -> tuple[Tensor, Tensor]:
    """J^T J and J^T r, problem by problem: J of all together need not fit in memory."""
    shifts = torch.eye(len(vector), dtype=vector.dtype) * change
    base, *columns = (list(residuals(vector + shift)) for shift in (0, *shifts))
    normal, gradient = torch.zeros_like(shifts), torch.zeros_like(vector)
    for index, residual in enumerate(base):
        jacobian = torch.stack([column[index] - residual for column in columns]) / change
        normal += jacobian @ jacobian.t()
        gradient += jacobian @ residual
    return normal, gradient
