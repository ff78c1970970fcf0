"""Arguments that users of torch.nn.GRU and ncps write: the error says what serves here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from liquid_ode import CfCCell, LiquidCell, LiquidRNN, LTCCell, WiredCfCCell, Wiring
from liquid_ode.cells import ConvLiquidCell
from liquid_ode.cells.names import NAMES

RNN = LiquidRNN(3, 5)
X = torch.zeros(2, 4, 3)


def parameters_of(*functions: Callable[..., Any]) -> set[str]:
    names = {name for each in functions for name in inspect.signature(each).parameters}
    return names - {"self", "args", "kwargs"}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_it_names_what_serves_here(name: str) -> None:
    message = rf"LiquidRNN.__init__\(\) got an unexpected keyword argument '{name}': "
    with pytest.raises(TypeError, match=message):
        LiquidRNN(3, 5, **{name: None})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RNN(X, hx=None), r"LiquidRNN.forward\(\) got .* 'hx': it is h0 here"),
        (lambda: RNN.last(X, timespans=None), r"LiquidRNN.last\(\) .* it is durations here"),
        (lambda: RNN(input=X), "it is x here"),
        (lambda: LiquidCell(3, 5, bias=False), "every cell here has its biases"),
        (lambda: LiquidCell(3, 5)(X[0], hx=None), r"RecurrentCell.forward\(\) .* it is h0 here"),
        (
            lambda: LTCCell(3, 5, ode_unfolds=6),
            r"it is solver here: .*SemiImplicitEuler\(steps=6\)",
        ),
        (lambda: CfCCell(3, 5, mode="pure"), r"form of CfCCell: .* form=PureForm\(\)"),
        (lambda: WiredCfCCell(3, 5, mode="pure"), "it is form of CfCCell"),
        (lambda: ConvLiquidCell(3, 5, bias=False), "every cell here"),
        (lambda: LTCCell(in_features=3, hidden_size=5), "it is input_size here"),
    ],
)
def test_wherever_it_is_written(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_other_names_and_signatures_are_python_s() -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'wheels'$"):
        LiquidRNN(3, 5, wheels=4)  # type: ignore[call-arg]
    assert "projection" in inspect.signature(LiquidRNN).parameters
    assert CfCCell(3, 5, backbone_units=7).backbone[0].out_features == 7  # its own name


def test_a_wiring_as_the_size() -> None:
    for cell in (LiquidRNN, LTCCell, LiquidCell):
        with pytest.raises(ValueError, match=r"given as wiring=, with hidden_size=wiring\.units"):
            cell(3, Wiring.auto_ncp(3, 10, 2))  # type: ignore[arg-type]


def test_every_argument_of_theirs_is_ours_or_explained() -> None:
    ncps = pytest.importorskip("ncps.torch")
    ours = parameters_of(LiquidRNN.__init__, LiquidRNN.forward) | NAMES.keys()
    theirs = parameters_of(ncps.LTC.__init__, ncps.LTC.forward, ncps.CfC.__init__)
    theirs |= parameters_of(nn.GRU.forward, nn.GRUCell.__init__, nn.RNNCell.__init__)
    assert theirs <= ours
    of_cells = [ncps.LTCCell, ncps.CfCCell, ncps.WiredCfCCell]
    theirs = parameters_of(*(each.__init__ for each in of_cells))
    theirs |= parameters_of(*(each.forward for each in of_cells))
    assert theirs <= ours
    assert len(theirs) > 10
