"""Checks that a cell is an ordinary module: what replaces or hooks its parts takes effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.network.rnn import LiquidRNN
from liquid_ode.cells.testing.samples import (
    HIDDEN,
    INPUTS,
    Make,
    Samples,
    made,
    named,
    parameters_of,
)
from solvers.testing.kinds import require, require_close

STEPS, BATCH = 3, 2


def check_replacement(make: Make) -> None:
    """Parameters that are replaced, by what is made of others, are used as they are at each call.

    By parametrizations, and by attributes that are set before each call, as weight norms, pruning
    and dropout of weights do. States and gradients are those of a cell with these values.

    Raises:
        AssertionError: where a cell goes on with the values it had.
    """
    cell, other = made(make), made(make)
    x = Samples(cell).inputs(STEPS, BATCH)
    raw, values = parameters_of(cell), parameters_of(other)
    with torch.no_grad():
        for value in values.values():
            value.copy_(_changed(value))
    what = f"{named(cell)} should use {{}} as it is at each call, when it is "
    for name in raw:
        module, own = _holder(cell, name)
        parametrize.register_parametrization(module, own, _Changed())
    _compare(cell, raw, other, values, x, f"{what}parametrized")
    for name in raw:
        module, own = _holder(cell, name)
        parametrize.remove_parametrizations(module, own, leave_parametrized=False)
    raw = parameters_of(cell)
    for name in raw:
        delattr(*_holder(cell, name))
    for _ in range(2):
        for name, value in raw.items():
            setattr(*_holder(cell, name), _changed(value))
        _compare(cell, raw, other, values, x, f"{what}set as an attribute")


def _changed(values: Tensor) -> Tensor:
    """Other values, but for the zeros outside a wiring."""
    return 0.5 * values + 0.1 * (values != 0)


class _Changed(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return _changed(values)


def _compare(
    cell: RecurrentCell,
    raw: dict[str, Tensor],
    other: RecurrentCell,
    values: dict[str, Tensor],
    x: Tensor,
    what: str,
) -> None:
    states, expected = cell.sequence(x), other.sequence(x)
    how: dict[str, Any] = {"retain_graph": True, "materialize_grads": True}
    found = torch.autograd.grad(states.square().sum(), list(raw.values()), **how)
    wanted = torch.autograd.grad(expected.square().sum(), list(values.values()), **how)
    for name, ours, theirs in zip(raw, found, wanted, strict=True):
        require_close(ours, 0.5 * theirs, f"{what.format(name)}, for its gradient", 1e-9)
    for ours, theirs in ((states, expected), (cell(x[0]), other(x[0]))):
        require_close(ours, theirs, what.format("every parameter"), 1e-9)


def check_hooks(make: Make) -> None:
    """Hooks on a cell fire once for a sequence, also in a network; those on its layers fire.

    Raises:
        AssertionError: where one does not fire.
    """
    cell = made(make)
    x = Samples(cell).inputs(STEPS, BATCH)
    rnn = LiquidRNN(INPUTS, HIDDEN, cell=lambda i, h: cell, batch_first=False)
    runs: dict[str, Callable[[], Any]] = {
        "a call": lambda: cell(x[0]),
        "sequence": lambda: cell.sequence(x),
        "a LiquidRNN": lambda: rnn(x),
    }
    for way, run in runs.items():
        fired = _times_fired(cell, run)
        require(
            fired == 1,
            f"a forward hook on {named(cell)} should fire once in {way}, not {fired} times: a "
            "sequence is a call of the cell, cell(x, h0, durations=...)",
        )
    for name, layer in _layers(cell):
        require(
            _times_fired(layer, runs["sequence"]) > 0,
            f"a forward hook on {name} of {named(cell)} should fire: call it, where its weight "
            "is read now",
        )


def _times_fired(module: nn.Module, run: Callable[[], Any]) -> int:
    fired: list[int] = []
    handle = module.register_forward_hook(lambda *_: fired.append(1))
    run()
    handle.remove()
    return len(fired)


def _layers(cell: RecurrentCell) -> Iterator[tuple[str, nn.Module]]:
    """The modules within the cell that hold parameters, and can be called."""
    for name, module in cell.named_modules():
        own = any(True for _ in module.parameters(recurse=False))
        called = type(module).forward is not nn.Module.forward
        if name and name.split(".")[0] != "solver" and own and called:
            yield name, module


def _holder(cell: RecurrentCell, name: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter, and the parameter's name there."""
    path, _, own = name.rpartition(".")
    return cell.get_submodule(path), own
