"""Checks of a wiring: what is outside it is never used, and never drifts."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.ode import ODECell
from liquid_ode.cells.testing.samples import Make, Samples, made, named, parameters_of
from liquid_ode.cells.wiring.masks import Wired, masks_of
from solvers.testing.kinds import require

ENTRIES = dict[str, Tensor]
"""Which entries of each parameter, bool, by its name."""


def check_masks(make: Make) -> None:
    """A wiring holds, before training and after.

    The masks of a cell are those of :meth:`liquid_ode.cells.RecurrentCell.wire`, its own or of its
    parts. To each connection that they leave out belongs at least one entry of a parameter that
    gets no gradient. No value of these entries changes a state, and training with weight decay
    leaves them at zero. In the field of an ODE cell, a neuron is driven by those that
    ``wiring.recurrent`` names, and no other. A cell without a wiring passes.

    Raises:
        AssertionError: where it does not hold.
    """
    cell = made(make)
    masks = list(_masks(cell))
    if not masks and any(mask is not None for mask in masks_of(cell.wiring)):
        raise AssertionError(
            f"{named(cell)} has the wiring {cell.wiring}, but gives no weight a mask: call "
            "wire(wiring.recurrent, 'name'), or take a WiredLinear"
        )
    absent = sum(int((~mask).sum()) for mask in masks)
    if absent == 0:
        return
    samples = Samples(cell)
    x, h0, durations = samples.inputs(3, 16), samples.states(16), samples.durations(3, 16)
    unused = _without_gradient(cell, x, h0, durations)
    found = sum(int(entries.sum()) for entries in unused.values())
    require(
        found >= absent,
        f"the wiring of {named(cell)} leaves out {absent} connections, but only {found} entries "
        "of its parameters get no gradient: multiply weights by the masks wherever they are used",
    )
    _check_no_influence(cell, unused, x, h0, durations)
    _check_connections(cell, x[0], h0)
    _train(cell, x, h0, durations)
    for name, entries in unused.items():
        drifted = int((cell.get_parameter(name).detach()[entries] != 0).sum())
        require(
            drifted == 0,
            f"{drifted} entries of {name} of {named(cell)} are outside the wiring, but are not "
            "zero after training with weight decay: start them at zero, and let no gradient "
            "reach them",
        )
    _check_no_influence(cell, unused, x, h0, durations)


def _masks(cell: RecurrentCell) -> Iterator[Tensor]:
    for module in cell.modules():
        if isinstance(module, Wired):
            yield from {id(mask): mask for mask in module.masks().values()}.values()


def _without_gradient(cell: RecurrentCell, x: Tensor, h0: Tensor, durations: Tensor) -> ENTRIES:
    """The entries of parameters that random states do not depend on."""
    parameters = parameters_of(cell)
    loss = cell.sequence(x, h0, durations).square().sum()
    found = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    return {name: gradient == 0 for name, gradient in zip(parameters, found, strict=True)}


def _check_no_influence(
    cell: RecurrentCell, unused: ENTRIES, x: Tensor, h0: Tensor, durations: Tensor
) -> None:
    with torch.no_grad():
        expected = cell.sequence(x, h0, durations)
        for name, entries in unused.items():
            other = copy.deepcopy(cell)
            other.get_parameter(name)[entries] = 3.0
            require(
                torch.equal(other.sequence(x, h0, durations), expected),
                f"entries of {name} of {named(cell)} that get no gradient should have no "
                "influence, but the states change with them",
            )


def _check_connections(cell: RecurrentCell, x: Tensor, h: Tensor) -> None:
    """The Jacobian of an ODE cell's field, against its mask."""
    if not isinstance(cell, ODECell) or cell.wiring is None:
        return
    mask = cell.wiring.recurrent
    field, y = cell.field(x), h.clone().requires_grad_()
    slope = field(y.new_zeros(()), y).transpose(0, 1).flatten(1).sum(1)  # of each neuron
    driven = []
    for neuron in slope:
        (by,) = torch.autograd.grad(neuron, y, retain_graph=True)
        driven.append((by != 0).transpose(0, 1).flatten(1).any(1))
    found = torch.stack(driven)
    itself = torch.eye(len(found), dtype=torch.bool)  # by the leak
    wrong = (found != (mask | itself)).nonzero()
    require(
        len(wrong) == 0,
        f"in the field of {named(cell)}, wiring.recurrent[i, j] should say whether neuron j drives "
        f"neuron i, but it does not for (i, j) in {wrong.tolist()}",
    )


def _train(cell: RecurrentCell, x: Tensor, h0: Tensor, durations: Tensor) -> None:
    optimizer = torch.optim.AdamW(cell.parameters(), lr=0.02, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        cell.sequence(x, h0, durations).square().sum().backward()
        optimizer.step()
