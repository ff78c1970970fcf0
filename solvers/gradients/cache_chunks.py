"""Solving a large batch some rows at a time, so that the states stay in the processor's cache.

A step makes a few passes over the state; from memory they would cost more than the arithmetic.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from solvers.fields.base import knows_derivative
from solvers.fields.batch_parts import is_selectable, select
from solvers.loop.integration import Integration
from solvers.methods.relaxation import Relaxation
from solvers.solution import Solution
from solvers.transforms import under_transform

# State elements a thread: the few float32 arrays of a step then fit its second-level cache.
_ELEMENTS_A_THREAD = 2**16


def row_chunks(integration: Integration, y0: Tensor) -> list[slice]:
    """The rows to solve together; one slice where there is nothing to gain.

    For a budget of steps on vectors, without asked times, outside function transforms.
    """
    rows = y0.shape[0]
    whole = [slice(0, rows)]
    # Fields of maps are convolutions, which work in blocks of their own.
    if y0.device.type != "cpu" or y0.ndim > 2 or not is_selectable(integration.field):
        return whole
    elements = _ELEMENTS_A_THREAD * torch.get_num_threads()
    count = round(y0.numel() / elements)
    if count < 2:
        return whole
    size = -(-rows // count)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def run_in_chunks(integration: Integration, y0: Tensor) -> Solution:
    """Solve with a budget of steps; in chunks where no gradient is recorded."""
    if torch.is_grad_enabled() or under_transform() or integration.times is not None:
        return integration.gradient.solve(integration, y0)
    if isinstance(integration.method, Relaxation) and knows_derivative(integration.field):
        # The targets of such a field are the solver's to overwrite: fewer arrays in the cache.
        integration = replace(integration, method=replace(integration.method, overwrites=True))
    chunks = row_chunks(integration, y0)
    if len(chunks) == 1:
        return integration.gradient.solve(integration, y0)
    y = torch.empty_like(y0)
    for rows in chunks:
        field = select(integration.field, rows, y0.ndim)
        solution = replace(integration, field=field).run(y0[rows])
        y[rows] = solution.y
    status = solution.status[:1].expand(y0.shape[0])
    return replace(solution, y=y, status=status)
