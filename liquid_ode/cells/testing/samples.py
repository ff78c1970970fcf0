"""The cell under test, what it is given, and how its results are compared."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.ode import ODECell
from solvers import Solver
from solvers.testing.kinds import has_budget

Make = Callable[[int, int], RecurrentCell]
"""Makes a cell under test: ``make(input_size, hidden_size)``."""

INPUTS, HIDDEN = 3, 5
SIDES = (4, 3)  # of maps: no two sizes the same


def made(
    make: Make,
    input_size: int = INPUTS,
    hidden_size: int = HIDDEN,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> RecurrentCell:
    """A new cell, in evaluation mode.

    Raises:
        ValueError: where it is no cell of these sizes.
    """
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        cell = make(input_size, hidden_size)
    finally:
        torch.set_rng_state(before)
    if not isinstance(cell, RecurrentCell):
        raise ValueError(
            f"make({input_size}, {hidden_size}) must give a RecurrentCell, "
            f"not {type(cell).__name__}"
        )
    if (cell.input_size, cell.hidden_size) != (input_size, hidden_size):
        raise ValueError(
            f"make({input_size}, {hidden_size}) gave a cell of sizes "
            f"({cell.input_size}, {cell.hidden_size})"
        )
    return cell.to(dtype=dtype).eval()


def with_solver(cell: ODECell, solver: Solver) -> ODECell:
    """The same cell with another solver."""
    other = copy.deepcopy(cell)
    del other.solver  # which torch.nn may hold as a module, if it is learned
    other.solver = solver
    return other


def parameters_of(cell: RecurrentCell) -> dict[str, Tensor]:
    """The cell's own parameters by name, without those of a learned solver."""
    every = cell.named_parameters()
    return {name: value for name, value in every if not name.startswith("solver.")}


def is_exact(cell: RecurrentCell) -> bool:
    """Whether the cell's numbers are those of known steps, not of any that a tolerance allows."""
    return not isinstance(cell, ODECell) or has_budget(cell.solver)


class Samples:
    """Random inputs, states and durations for a cell, in the dtype of its parameters."""

    def __init__(self, cell: RecurrentCell, seed: int = 1) -> None:
        self.generator = torch.Generator("cpu").manual_seed(seed)
        self.dtype = next(cell.parameters()).dtype
        self.features = (cell.input_size, *SIDES[: cell.feature_axes - 1])
        self.state = cell.state_shape(self.features)
        self.ones = (1,) * cell.feature_axes

    def inputs(self, *lead: int) -> Tensor:
        """x, ``(*lead, *features)``."""
        return self._normal(*lead, *self.features)

    def states(self, *lead: int) -> Tensor:
        """h, ``(*lead, *state)``."""
        return 0.5 * self._normal(*lead, *self.state)

    def durations(self, *lead: int) -> Tensor:
        """From 0.1 to 0.9: ``lead``."""
        uniform = torch.rand(lead, generator=self.generator, dtype=torch.float64)
        return (0.1 + 0.8 * uniform).to(self.dtype)

    def of_forward(self, durations: Tensor) -> Tensor:
        """Durations ``(*batch)`` as ``cell(x, duration=...)`` takes them."""
        return durations.reshape(*durations.shape, *self.ones)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.dtype)


def one_by_one(
    cell: RecurrentCell, x: Tensor, h: Tensor | None, durations: Sequence[Tensor | float]
) -> Tensor:
    """The states after each input, by a call for each."""
    states = []
    for of_step, duration in zip(x.unbind(), durations, strict=True):
        h = cell(of_step, h, duration=duration)
        states.append(h)
    return torch.stack(states)


def named(cell: RecurrentCell) -> str:
    """How a message calls the cell."""
    solver = f"(solver={cell.solver})" if isinstance(cell, ODECell) else ""
    return type(cell).__name__ + solver
