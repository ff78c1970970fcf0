"""Comparisons as tables of plain text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from liquid_ode.comparing.solver_swap import Swap
from liquid_ode.comparing.work_precision import ERROR, TARGETS, Needed, Row, needed, short_name
from solvers.suite import KnownProblem


def problem_block(problem: KnownProblem, rows: Sequence[Row], left_out: Mapping[str, str]) -> str:
    """What a problem is, :func:`summary` of its rows, and the solvers that were left out."""
    states = "x".join(map(str, problem.y0.shape))
    lines = [
        f"{problem.name}: {problem.about}",
        f"t {problem.span[0]:g} to {problem.span[1]:g}, states {states}; {ERROR}; * best",
        summary(rows),
    ]
    reasons: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        # "etdrk2 needs a SemilinearField, dy/dt = ...; it was given ...": the same for all of them.
        clause = reason.partition(";")[0].removeprefix(f"{name.removeprefix('batched_')} ")
        reasons.setdefault(clause, []).append(name)
    for clause, names in reasons.items():
        lines.append(f"left out: {', '.join(map(short_name, names))}: {clause}")
    return "\n".join(lines)


def summary(rows: Sequence[Row], targets: Sequence[float] = TARGETS) -> str:
    """The work that each solver needed on one problem, the most efficient first.

    A line a solver: the fewest evaluations and the least time among its rows whose error is
    within each target, ``--`` where none is; the best of a column is marked ``*``. Then its
    smallest error, and which settings failed.
    """
    work = needed(rows, targets)
    columns = [*zip(*(entry.evaluations for entry in work.values()), strict=True),
               *zip(*(entry.milliseconds for entry in work.values()), strict=True)]  # fmt: skip
    best = [min((v for v in column if v is not None), default=None) for column in columns]
    width = max(len("solver"), *(len(short_name(name)) for name in work))
    wide = 9 * len(targets)
    heads = "".join(f"{f'{target:g}':>8} " for target in targets)
    lines = [
        f"{'':{width}} |{'evaluations to an error of':^{wide}}|{'ms to an error of':^{wide}}|",
        f"{'solver':{width}} |{heads}|{heads}| smallest error",
    ]
    lines.append("-" * len(lines[-1]))
    for name in sorted(work, key=lambda name: _efficiency(work[name])):
        entry = work[name]
        cells = [
            _cell(value, best[index], exact=index < len(targets))
            for index, value in enumerate((*entry.evaluations, *entry.milliseconds))
        ]
        half = len(targets)
        mine = [row for row in rows if row.solver == name]
        parts = f"{short_name(name):{width}} ", "".join(cells[:half]), "".join(cells[half:])
        lines.append("|".join((*parts, f" {_ends(mine)}")))
    return "\n".join(lines)


def _efficiency(entry: Needed) -> tuple[float, ...]:
    """Sorts by the evaluations to the smallest target, then to the next, ..."""
    return tuple(math.inf if value is None else value for value in reversed(entry.evaluations))


def _cell(value: float | None, best: float | None, *, exact: bool) -> str:
    if value is None:
        return f"{'--':>8} "
    text = f"{value:.1f}".removesuffix(".0") if exact else f"{value:.2f}"
    return f"{text:>8}{'*' if value == best else ' '}"


def _ends(rows: Sequence[Row]) -> str:
    """The smallest error of one solver's rows, and what failed."""
    errors = [row.error for row in rows if row.error is not None]
    failed = [row.setting for row in rows if row.failure is not None]
    text = f"{min(errors):.1e}" if errors else "--"
    return f"{text}  failed: {', '.join(failed)}" if failed else text


def every_row(rows: Sequence[Row]) -> Iterator[str]:
    """The lines of a table of all rows of one problem, by evaluations; those that failed last."""
    width = max(len("solver"), *(len(short_name(row.solver)) for row in rows))
    wide = max(len("setting"), *(len(row.setting) for row in rows))
    yield f"{'solver':{width}}  {'setting':{wide}}  evaluations        ms  error"
    for row in sorted(rows, key=lambda row: (row.evaluations or math.inf, row.error or 0)):
        start = f"{short_name(row.solver):{width}}  {row.setting:{wide}}"
        if row.error is None or row.evaluations is None or row.milliseconds is None:
            yield f"{start}  failed: {row.failure}"
        else:
            yield f"{start}  {row.evaluations:11.1f} {row.milliseconds:9.2f}  {row.error:.1e}"


def swap_table(rows: Sequence[Swap]) -> str:
    """The rows as a table, in their order."""
    width = max(len("solver"), *(len(row.solver) for row in rows))
    lines = [
        f"{'solver':{width}}  evaluations  loss              change from own        pixels      s",
    ]
    for row in rows:
        if row.failure is not None:
            lines.append(f"{row.solver:{width}}  failed: {row.failure}")
            continue
        lines.append(
            f"{row.solver:{width}}  {row.evaluations:11.1f}  {row.loss:.4f} ± {row.loss_error:.4f}"
            f"  {row.change:+.5f} ± {row.change_error:.5f}  {row.image_change:8.2f}  "
            f"{row.seconds:5.1f}"
        )
    return "\n".join(lines)
