"""The solution out of where a solve ended."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from solvers.loop.crossings import Stops, gather_crossings
from solvers.loop.problem import Problem
from solvers.loop.saved_times import stack_records
from solvers.loop.solve_state import Finished, SolveState
from solvers.path import SolutionPath
from solvers.solution import Solution, Stats, all_succeeded


def conclude(problem: Problem, end: SolveState) -> Solution:
    """The solution of the samples, which ended one by one or, unexamined, together."""
    together = end.live > 0 and not end.finished
    solution = _together(end) if together else _one_by_one(problem, end)
    if problem.times is not None:
        solution = replace(solution, ys=stack_records(problem.times, end.records, problem.y0))
    if problem.dense:
        y0 = problem.y0 if torch.is_grad_enabled() else problem.y0.detach()
        path = SolutionPath(end.pieces, y0, problem.t_span, solution.event_time)
        solution = replace(solution, path=path)
    return solution


def _together(end: SolveState) -> Solution:
    jacobians = end.tries * end.bound.method.jacobians
    stats = Stats(nfe=end.evaluations, accepted=end.tries, jacobians=jacobians)
    return Solution(end.y, None, stats, all_succeeded(end.y), succeeded=True)


def _one_by_one(problem: Problem, end: SolveState) -> Solution:
    parts = end.finished
    order = torch.cat([part.rows for part in parts]).argsort()

    def gathered(values: list[Tensor]) -> Tensor:
        return torch.cat(values)[order]

    def evaluations(part: Finished) -> Tensor:
        own = part.evaluations
        return torch.full_like(part.rows, end.evaluations if own is None else own)

    accepted = gathered([part.accepted for part in parts])
    tries = gathered([torch.full_like(part.rows, part.tries) for part in parts])
    stats = Stats(gathered([evaluations(part) for part in parts]), accepted, tries - accepted)
    if end.bound.method.jacobians:  # one of every step that is tried
        stats = replace(stats, jacobians=tries * end.bound.method.jacobians)
    solution = Solution(
        y=gathered([part.y for part in parts]),
        ys=None,
        stats=stats,
        status=gathered([part.status for part in parts]),
    )
    if not problem.events:
        return solution
    stops = [part.stops for part in parts if part.stops is not None]
    ends = Stops(*(gathered(list(values)) for values in zip(*stops, strict=True)))
    return replace(
        solution,
        event_time=ends.times.to(torch.promote_types(problem.y0.dtype, torch.float32)),
        event_index=ends.which,
        events=gather_crossings(problem.events, end.crossings, solution.y),
    )
