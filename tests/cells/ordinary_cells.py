"""One of every kind of cell, and what to give it: for what holds of every cell alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from liquid_ode.cells import (
    CfCCell,
    ConvLiquidCell,
    LiquidCell,
    LiquidRNN,
    LTCCell,
    NoGateForm,
    PureForm,
    RecurrentCell,
    WiredCfCCell,
    Wiring,
)

INPUTS, HIDDEN, BATCH, STEPS = 3, 5, 4, 3
SIDES = (4, 2)
NCP = Wiring.auto_ncp(INPUTS, HIDDEN, 1)
# Every neuron is driven by some input and some neuron: of a row of zeros there is no norm.
SPARSE = Wiring.random(HIDDEN, sparsity=0.4, input_size=INPUTS, seed=0)

CELLS: dict[str, Callable[[int, int], RecurrentCell]] = {
    "liquid": LiquidCell,
    "liquid, wired": lambda i, h: LiquidCell(i, h, wiring=SPARSE),
    "ltc": LTCCell,
    "ltc, wired": lambda i, h: LTCCell(i, h, wiring=SPARSE),
    "cfc": lambda i, h: CfCCell(i, h, backbone_units=7),
    "cfc, pure": lambda i, h: CfCCell(i, h, backbone_units=7, form=PureForm()),
    "cfc, wired, no gate": lambda i, h: CfCCell(i, h, wiring=SPARSE, form=NoGateForm()),
    "wired cfc": lambda i, h: WiredCfCCell(i, h, wiring=NCP),
    "conv": ConvLiquidCell,
    "conv, wired": lambda i, h: ConvLiquidCell(i, h, wiring=SPARSE),
}


def made(name: str, dtype: torch.dtype = torch.float64) -> RecurrentCell:
    """A new cell, the same weights each time."""
    torch.manual_seed(0)
    return CELLS[name](INPUTS, HIDDEN).to(dtype)


def network(cell: RecurrentCell, **options: Any) -> LiquidRNN:
    """A LiquidRNN, time first, around this very cell."""
    return LiquidRNN(INPUTS, HIDDEN, cell=lambda i, h: cell, batch_first=False, **options)


def inputs(cell: RecurrentCell, *lead: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """x ``(*lead, *features)``; of ``(T, B)`` if no lead is given."""
    generator = torch.Generator().manual_seed(1)
    shape = (*(lead or (STEPS, BATCH)), INPUTS, *SIDES[: cell.feature_axes - 1])
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def holder(cell: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that a parameter or submodule hangs on, and its name there."""
    path, _, own = name.rpartition(".")
    return cell.get_submodule(path), own


def of_every_parameter() -> list[tuple[str, str]]:
    """Every parameter of every cell: the cell's name, and the parameter's."""
    return [(name, own) for name in CELLS for own, _ in made(name).named_parameters()]


def of_every_layer() -> list[tuple[str, str]]:
    """Every linear or convolutional layer of every cell: the cell's name, and the layer's."""
    kinds = (nn.Linear, nn.Conv2d)
    return [
        (name, own)
        for name in CELLS
        for own, module in made(name).named_modules()
        if isinstance(module, kinds)
    ]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
