"""A learned solver beside others, at equal numbers of evaluations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import solvers

# What there is without training, and its evaluations a step.
STAGES = {
    "euler": 1, "uniform_euler": 1, "exponential_euler": 1, "heun": 2, "etdrk2": 2, "etdrk4": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One solver with one budget.

    Attributes:
        budget: evaluations of the learned solver that it is compared with.
        name: ``learned`` or the name of another.
        evaluations: its own: the budget, or the next multiple of its evaluations a step, so that
            none has fewer.
        solver: the solver.
        error: on the problems, as :func:`solvers.relative_errors` has it.
    """

    budget: int
    name: str
    evaluations: int
    solver: solvers.Solver
    error: float = math.nan


def candidates(learned: solvers.LearnedSolver) -> list[Entry]:
    """The learned solver with each budget that it was trained for, and the others with that."""
    found = []
    for budget in learned.trained:
        found.append(Entry(budget, "learned", budget, learned.with_steps(budget)))
        for name, stages in STAGES.items():
            steps = math.ceil(budget / stages)
            found.append(Entry(budget, name, steps * stages, solvers.get(name, steps=steps)))
    return found


def compare(learned: solvers.LearnedSolver, problems: Sequence[solvers.Problem]) -> list[Entry]:
    """The errors on problems of semilinear fields, by budget; the learned solver is the first.

    Raises:
        ValueError: where there are no problems.
        SolverError: where a problem cannot be solved tightly.
    """
    entries = candidates(learned)
    errors = solvers.relative_errors(
        {str(place): entry.solver for place, entry in enumerate(entries)}, problems
    )
    return [
        Entry(entry.budget, entry.name, entry.evaluations, entry.solver, error)
        for entry, error in zip(entries, errors.values(), strict=True)
    ]


def as_table(entries: Sequence[Entry]) -> str:
    """The errors as text, a line for each budget; evaluations in brackets where they are more."""
    names = list(dict.fromkeys(entry.name for entry in entries))
    lines = [["", *names]]
    for budget in dict.fromkeys(entry.budget for entry in entries):
        of_budget = {entry.name: entry for entry in entries if entry.budget == budget}
        line = [str(budget)]
        for name in names:
            entry = of_budget[name]
            more = "" if entry.evaluations == budget else f" ({entry.evaluations})"
            line.append(f"{entry.error:.2e}{more}")
        lines.append(line)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "   ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
