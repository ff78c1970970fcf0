"""Work and precision of solvers: what error each makes, for how much work.

The error of a solve is relative, RMS(y(t1) - reference) / RMS(reference) over all elements of all
samples, as :meth:`solvers.suite.KnownProblem.error` defines it. Work is the evaluations of the
field, the mean over the samples, and the time, a median over repeats.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

import solvers
from liquid_ode.measuring.machine import synchronize
from solvers.suite import KnownProblem

ERROR = "relative error, RMS(y - reference) / RMS(reference)"
STEPS = (1, 2, 3, 5, 7, 10, 20, 40)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
TARGETS = (1e-1, 1e-2, 1e-3, 1e-4)

# Slow solves are repeated less often: this many seconds each, besides the first repeat.
_PATIENCE = 0.25


@dataclass(frozen=True)
class Candidate:
    """A solver as it is measured.

    Attributes:
        name: of the solver, without its budget or tolerance; one line in a plot.
        setting: the budget or tolerance, "5 steps" or "rtol 0.001".
        solver: the solver.
    """

    name: str
    setting: str
    solver: solvers.Solver


@dataclass(frozen=True)
class Row:
    """What one candidate did on one problem.

    Attributes:
        problem, solver, setting: names.
        evaluations: of the field, mean over the samples; None where the solve failed.
        milliseconds: median over the repeats; None where the solve failed.
        error: relative, see the module; None where the solve failed.
        failure: why it failed, or None.
    """

    problem: str
    solver: str
    setting: str
    evaluations: float | None
    milliseconds: float | None
    error: float | None
    failure: str | None = None


class Fitting(NamedTuple):
    """The candidates for one problem, and why the other solvers cannot be used on it."""

    candidates: list[Candidate]
    left_out: dict[str, str]


@dataclass(frozen=True)
class Needed:
    """The least work with which a solver came below each target error; None where it did not."""

    evaluations: tuple[float | None, ...]
    milliseconds: tuple[float | None, ...]


def candidates(
    name: str, steps: Sequence[int] = STEPS, tolerances: Sequence[float] = TOLERANCES
) -> list[Candidate]:
    """A solver at a range of budgets, or of tolerances where it is driven by one.

    A solver that has neither to choose is one candidate. The absolute tolerance is a tenth of
    the relative one, as in the solvers' defaults.

    Raises:
        ValueError: where the name, a budget or a tolerance is not one the solver takes.
    """
    for count in steps:
        if count < 1:
            raise ValueError(f"a number of steps must be at least 1, not {count}")
    if solvers.options(name).get("rtol") is not None:
        return [
            Candidate(name, f"rtol {rtol:g}", solvers.get(name, rtol=rtol, atol=rtol / 10))
            for rtol in tolerances
        ]
    solver = solvers.get(name)
    budgets = {}
    for count in steps:
        try:
            budgets[count] = solver.with_steps(count)
        except ValueError:
            continue  # learned coefficients may be for one number of steps only
    if all(changed is solver for changed in budgets.values()):
        return [Candidate(name, "as it is", solver)]
    return [Candidate(name, steps_text(count), changed) for count, changed in budgets.items()]


def steps_text(count: int) -> str:
    """A budget in words."""
    return f"{count} step{'s' if count > 1 else ''}"


def short_name(name: str) -> str:
    """A solver's name as tables and plots have room for: of a path the end tells files apart."""
    kind, colon, path = name.partition(":")
    if kind == "learned":
        name = f"{kind}{colon}{Path(path).stem}"
    return name if len(name) <= 24 else f"…{name[-23:]}"


def fitting(
    problem: KnownProblem,
    names: Iterable[str],
    steps: Sequence[int] = STEPS,
    tolerances: Sequence[float] = TOLERANCES,
) -> Fitting:
    """The :func:`candidates` of all solvers that can be used on a problem.

    A method for semilinear fields, say, cannot be used on any other. A solve that fails by itself
    is no reason to leave a solver out.

    Raises:
        ValueError: as for :func:`candidates`.
    """
    entries: list[Candidate] = []
    left_out = {}
    for name in dict.fromkeys(names):
        those = candidates(name, steps, tolerances)
        try:
            with torch.no_grad():
                those[0].solver.solve(problem.field, problem.y0, problem.span, throw=False)
        except ValueError as error:
            left_out[name] = str(error)
        else:
            entries += those
    return Fitting(entries, left_out)


def measure(problem: KnownProblem, entries: Sequence[Candidate], repeats: int = 5) -> list[Row]:
    """Solve a problem with every candidate: errors, evaluations and times, in their order.

    After one solve of each as a warm-up the repeats go round: the first of each, the second of
    each, ..., so that a drift of the machine meets all alike; every round in another order, so
    that no solver is always the one after the slowest. A solve that takes long is repeated less
    often.

    Raises:
        ValueError: where ``repeats`` < 1, or a solver cannot be used on the problem: see
            :func:`fitting`.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, not {repeats}")
    warm: list[solvers.Solution | str] = []
    for entry in entries:
        try:
            warm.append(_timed(problem, entry.solver)[0])
        except solvers.SolverError as error:
            warm.append(str(error))
    seconds: list[list[float]] = [[] for _ in entries]
    order = random.Random(0)
    for _ in range(repeats):
        for index in order.sample(range(len(entries)), len(entries)):
            if isinstance(warm[index], str) or sum(seconds[index]) > _PATIENCE:
                continue
            seconds[index].append(_timed(problem, entries[index].solver)[1])
    return [
        _row(problem, entry, found, taken)
        for entry, found, taken in zip(entries, warm, seconds, strict=True)
    ]


def _timed(problem: KnownProblem, solver: solvers.Solver) -> tuple[solvers.Solution, float]:
    device = problem.y0.device
    synchronize(device)
    began = time.perf_counter()
    with torch.no_grad():
        solution = solver.solve(problem.field, problem.y0, problem.span)
    synchronize(device)
    return solution, time.perf_counter() - began


def _row(
    problem: KnownProblem, entry: Candidate, found: solvers.Solution | str, seconds: Sequence[float]
) -> Row:
    names = problem.name, entry.name, entry.setting
    if isinstance(found, str):
        return Row(*names, None, None, None, found)
    error = problem.error(found.y)
    return Row(*names, mean_evaluations(found), 1e3 * median(seconds), error)


def mean_evaluations(solution: solvers.Solution) -> float:
    """Evaluations of the field, the mean over the samples."""
    return float(torch.as_tensor(solution.stats.nfe).double().mean())


def needed(rows: Sequence[Row], targets: Sequence[float] = TARGETS) -> dict[str, Needed]:
    """By solver, the least work among the rows of one problem that came below each target."""
    found = {}
    for name in dict.fromkeys(row.solver for row in rows):
        done = [row for row in rows if row.solver == name and row.error is not None]
        within = [[row for row in done if (row.error or 0) <= target] for target in targets]
        found[name] = Needed(
            tuple(min((r.evaluations for r in good if r.evaluations), default=None)
                  for good in within),
            tuple(min((r.milliseconds for r in good if r.milliseconds), default=None)
                  for good in within),
        )  # fmt: skip
    return found


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (work, error) those that no other point beats in both, by increasing work."""
    best: list[tuple[float, float]] = []
    for work, error in sorted(points):
        if math.isfinite(error) and (not best or error < best[-1][1]):
            best.append((work, error))
    return best
