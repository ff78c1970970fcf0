"""Checks of a state that starts anew inside a sequence."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from liquid_ode.cells.testing.batches import SHARED
from liquid_ode.cells.testing.samples import Make, Samples, is_exact, made, named
from solvers.testing.kinds import require, require_close

STEPS, BATCH = 4, 3


def check_resets(make: Make, *, per_sample: bool = True) -> None:
    """Where a state is reset, an episode begins, as if it were run by itself.

    With a duration of each sample and with one for all; what a state was before a reset, NaN for
    one, has no effect, and gets a gradient of exactly zero (unless steps depend on all samples).

    Args:
        make: see :func:`check_cell`.
        per_sample: likewise.

    Raises:
        AssertionError: where a state or gradient is another.
    """
    cell = made(make)
    samples = Samples(cell)
    x, h0 = samples.inputs(STEPS, BATCH), samples.states(BATCH)
    durations = samples.durations(STEPS, BATCH)
    resets = torch.zeros(STEPS, BATCH, dtype=torch.bool)
    resets[0, 1] = resets[1, 1] = resets[2, 0] = True
    unused = h0.clone()
    unused[1] = torch.nan
    tolerance = 1e-9 if per_sample and is_exact(cell) else SHARED
    for times in (durations, None):
        expected = torch.stack(
            [
                torch.cat(
                    [
                        cell.sequence(
                            x[part, row : row + 1],
                            None if resets[part.start, row] else h0[row : row + 1],
                            None if times is None else times[part, row : row + 1],
                        )
                        for part in _episodes(resets[:, row])
                    ]
                ).squeeze(1)
                for row in range(BATCH)
            ],
            dim=1,
        )
        span = 1.0 if times is None else samples.of_forward(times)
        mask = resets.reshape(STEPS, BATCH, *samples.ones)
        leaves = (x.clone().requires_grad_(), unused.clone().requires_grad_())
        states = cell.flow_with_resets(*leaves, span, mask)
        what = f"with resets, {named(cell)} should give every episode the states it gets alone"
        require_close(states, expected, what, tolerance)
        of_x, of_h0 = torch.autograd.grad(states[2:].sum(), leaves)
        crossed = torch.cat([of_x[:2, 0].flatten(), of_x[0, 1].flatten(), of_h0[:2].flatten()])
        require(
            not (per_sample and bool(crossed.any())) and bool(of_x[0, 2].any()),
            f"no gradient should go from after a reset to before it through {named(cell)}",
        )


def _episodes(resets: Tensor) -> list[slice]:
    """Those of one sample."""
    starts = [step for step in range(1, len(resets)) if bool(resets[step])]
    return [slice(*ends) for ends in pairwise((0, *starts, len(resets)))]
