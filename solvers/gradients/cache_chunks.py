"""Solving a large batch some rows at a time, so that the states stay in the processor's cache.

A step makes a few passes over the state; from memory they would cost more than the arithmetic.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from solvers.loop.integration import Integration
from solvers.loop.problem import Problem
from solvers.solution import Solution, all_succeeded
from solvers.step_size.rules import BudgetRule

# State elements a thread: the few float32 arrays of a step then fit its second-level cache.
_ELEMENTS_A_THREAD = 2**16


def row_chunks(problem: Problem) -> list[slice]:
    """The rows to solve together; one slice where there is nothing to gain.

    For a budget of steps on vectors, without asked times.
    """
    y0 = problem.y0
    rows = y0.shape[0]
    whole = [slice(0, rows)]
    # Fields of maps are convolutions, which work in blocks of their own.
    if y0.device.type != "cpu" or y0.ndim > 2 or not problem.selectable:
        return whole
    elements = _ELEMENTS_A_THREAD * torch.get_num_threads()
    count = round(y0.numel() / elements)
    if count < 2:
        return whole
    size = -(-rows // count)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def run_in_chunks(integration: Integration) -> Solution:
    """Run; with a budget of steps in chunks, where no gradient is recorded."""
    problem, y0 = integration.problem, integration.problem.y0
    if (
        torch.compiler.is_compiling()  # for which the rows may be of any number
        or torch.is_grad_enabled()
        or not isinstance(integration.rule, BudgetRule)
        or problem.times is not None
        or problem.dense
        or problem.events
    ):
        return integration.run()
    chunks = row_chunks(problem)
    if len(chunks) == 1:
        return integration.run()
    parts = [replace(integration, problem=problem.select(rows)).run() for rows in chunks]
    y = torch.cat([part.y for part in parts])
    if all(part.succeeded for part in parts):
        return replace(parts[0], y=y, status=all_succeeded(y0))
    return integration.run()  # rare: to count and to name what failed over the whole batch
