"""The conformance suite that every cell of this package passes, for cells of your own.

>>> from liquid_ode import LiquidCell, Wiring
>>> from liquid_ode.cells import testing
>>> testing.check_cell(LiquidCell)
>>> testing.check_cell(lambda i, h: LiquidCell(i, h, wiring=Wiring.random(h, sparsity=0.5)))

Each check raises AssertionError, with what was expected and what was found. They need torch
alone, run on the CPU in a second or a few, and leave its random numbers as they are. Cells are
checked in evaluation mode, where dropout does nothing.
"""

from liquid_ode.cells.testing.batches import check_batch_independence, check_permutation
from liquid_ode.cells.testing.durations import check_durations, check_streaming
from liquid_ode.cells.testing.gradients import check_gradients
from liquid_ode.cells.testing.interface import (
    check_bad_input,
    check_copies,
    check_dtypes,
    check_shapes,
)
from liquid_ode.cells.testing.masks import check_masks
from liquid_ode.cells.testing.modules import check_hooks, check_replacement
from liquid_ode.cells.testing.resets import check_resets
from liquid_ode.cells.testing.samples import Make
from liquid_ode.cells.testing.transforms import check_transforms

__all__ = [
    "Make",
    "check_bad_input",
    "check_batch_independence",
    "check_cell",
    "check_copies",
    "check_dtypes",
    "check_durations",
    "check_gradients",
    "check_hooks",
    "check_masks",
    "check_permutation",
    "check_replacement",
    "check_resets",
    "check_shapes",
    "check_streaming",
    "check_transforms",
]


def check_cell(make: Make, *, per_sample: bool = True) -> None:
    """All checks that apply to the cell.

    Args:
        make: ``make(input_size, hidden_size)`` gives a new :class:`RecurrentCell`, such as a
            class of cells, or a function that also gives it a solver or a wiring. It is asked
            for cells of 3 to 4 inputs and 5 to 8 hidden features.
        per_sample: False for a cell whose solver takes steps that depend on all samples; its
            samples are then compared to the solver's tolerance.

    Raises:
        AssertionError: where one of them fails.
        ValueError: where ``make`` gives no cell of the sizes asked for.
    """
    check_shapes(make)
    check_dtypes(make)
    check_bad_input(make)
    check_copies(make)
    check_batch_independence(make, per_sample=per_sample)
    check_permutation(make)
    check_streaming(make)
    check_durations(make, per_sample=per_sample)
    check_resets(make, per_sample=per_sample)
    check_gradients(make)
    check_transforms(make)
    check_masks(make)
    check_replacement(make)
    check_hooks(make)
