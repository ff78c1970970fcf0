"""The cells of a network of several layers, made by the user's class or function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from torch import nn

from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.wiring.wiring import Wiring
from solvers import Solver


def wirings_of_layers(
    wiring: Wiring | Sequence[Wiring | None] | None, sizes: Sequence[int]
) -> Sequence[Wiring | None]:
    """The wiring of every layer, whose inputs have these sizes."""
    if isinstance(wiring, Wiring) and wiring.input_size is not None and len(set(sizes)) > 1:
        raise ValueError(
            f"the wiring takes {wiring.input_size} inputs, but the layers take {list(sizes)}: give "
            "a sequence of one wiring for each layer, such as [Wiring.auto_ncp(size, ...) for size "
            f"in {list(sizes)}]"
        )
    if wiring is None or isinstance(wiring, Wiring):
        return [wiring] * len(sizes)
    if not isinstance(wiring, Sequence):
        raise ValueError(
            "wiring must be a Wiring, such as Wiring.random(...), or a sequence of one for each "
            f"layer, not {type(wiring).__name__}"
        )
    if len(wiring) != len(sizes):
        raise ValueError(f"{len(wiring)} wirings were given for {len(sizes)} layers")
    return wiring


def make_cell(
    cell: Callable[..., RecurrentCell],
    input_size: int,
    hidden_size: int,
    solver: Solver | None,
    wiring: Wiring | None,
) -> RecurrentCell:
    """A new cell, told of the solver and the wiring where the user gave them."""
    options = {"solver": solver, "wiring": wiring}
    given = {name: value for name, value in options.items() if value is not None}
    call = ", ".join(["cell(input_size, hidden_size", *(f"{name}=..." for name in given)]) + ")"
    if isinstance(cell, nn.Module):
        raise ValueError(
            f"cell must be a class, such as LiquidCell, or a function that makes cells, called as "
            f"{call}, not the cell {type(cell).__name__}(...)"
        )
    try:
        inspect.signature(cell).bind(input_size, hidden_size, **given)
    except (TypeError, ValueError) as error:
        name = getattr(cell, "__name__", repr(cell))
        raise ValueError(f"cell={name} cannot be called as {call}: {error}") from error
    made = cell(input_size, hidden_size, **given)
    if not isinstance(made, RecurrentCell):
        raise ValueError(f"{call} must give a RecurrentCell, not {type(made).__name__}")
    if (made.input_size, made.hidden_size) != (input_size, hidden_size):
        raise ValueError(
            f"{call} of ({input_size}, {hidden_size}) gave a cell of sizes "
            f"({made.input_size}, {made.hidden_size})"
        )
    return made
