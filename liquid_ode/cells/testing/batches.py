"""Checks that samples do not depend on each other, nor on their place in the batch."""

from __future__ import annotations

import torch

from liquid_ode.cells.testing.samples import HIDDEN, INPUTS, Make, Samples, is_exact, made, named
from solvers.testing.kinds import require, require_close

# By how much states may differ that only a tolerance controls.
SHARED = 1e-3
# And by how many roundings, where steps are known but a kernel is not.
ROUNDINGS = 16


def check_batch_independence(make: Make, *, per_sample: bool = True) -> None:
    """A sample's state does not depend on what else is in its batch, and follows its own duration.

    Batches of one sample, of as many as there are hidden features or inputs, and of more; one by
    one without a batch axis; with several batch axes; by themselves and as sequences.

    Args:
        make: see :func:`check_cell`.
        per_sample: likewise.

    Raises:
        AssertionError: where it does.
    """
    tolerance = 1e-11 if per_sample else SHARED
    cell = made(make)
    samples = Samples(cell)
    count = 2 * HIDDEN
    x, h0, durations = samples.inputs(2, count), samples.states(count), samples.durations(2, count)
    times = samples.of_forward(durations[0])
    first = zip(x[0], h0, times, strict=True)
    alone = torch.stack([cell(x, h, duration=time) for x, h, time in first])
    for rows in (HIDDEN, 1, INPUTS, HIDDEN + 1, count):
        what = f"a sample in a batch of {rows} should get the state it gets from {named(cell)} "
        together = cell(x[0, :rows], h0[:rows], duration=times[:rows])
        require_close(together, alone[:rows], f"{what}alone, for its own duration", tolerance)
        of_all = cell.sequence(x[:, :rows], h0[:rows], durations[:, :rows])
        require_close(of_all[0], alone[:rows], f"{what}alone, as a sequence", tolerance)
    shape = (2, HIDDEN)
    found = cell(
        x[0].unflatten(0, shape), h0.unflatten(0, shape), duration=times.unflatten(0, shape)
    )
    what = f"a sample in a batch {shape} should get the state it gets from {named(cell)} alone"
    require_close(found.flatten(0, 1), alone, what, tolerance)
    first = zip(x[0], h0, durations[0].tolist(), strict=True)
    numbers = torch.stack([cell(x, h, duration=number) for x, h, number in first])
    what = f"{named(cell)} should give the same for a duration as a number and as a tensor"
    require_close(numbers, alone, what, tolerance if is_exact(cell) else SHARED)


def check_permutation(make: Make) -> None:
    """A permutation of the batch permutes the states, and changes them by no more than rounding.

    By a few roundings of the largest state: a CPU's kernels may round a row by its place in the
    batch. Batches of 32 and 64 samples, which fill every kernel's vectors, and a small one, which
    does not. Where a tolerance decides on the steps, the states may differ by that much.

    Raises:
        AssertionError: where it does.
    """
    for dtype in (torch.float32, torch.float64):
        for sizes, count in (((INPUTS, HIDDEN), 32), ((4, 8), 64), ((INPUTS, HIDDEN), HIDDEN)):
            cell = made(make, *sizes, dtype=dtype)
            samples = Samples(cell)
            x, h0 = samples.inputs(2, count), samples.states(count)
            durations = samples.durations(2, count)
            order = torch.randperm(count, generator=samples.generator)
            for times in (durations, None):
                states = cell.sequence(x, h0, times).detach()
                moved = None if times is None else times[:, order]
                found = cell.sequence(x[:, order], h0[order], moved).detach()
                off = float((found - states[:, order]).abs().max())
                size = max(1.0, float(states.abs().max()))
                slack = ROUNDINGS * torch.finfo(dtype).eps * size if is_exact(cell) else SHARED
                require(
                    off <= slack,
                    f"{named(cell)} should give the same states to the samples of a batch in "
                    f"another order; in {dtype} with {count} samples they differ by {off:.1e}, "
                    f"more than {slack:.1e}",
                )
