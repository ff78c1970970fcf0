"""The motor neurons of a circuit as the outputs of a network."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from liquid_ode import (
    CfCCell,
    ConvLiquidCell,
    LiquidCell,
    LiquidRNN,
    LTCCell,
    MotorReadout,
    WiredCfCCell,
    Wiring,
)

WIRING = Wiring.auto_ncp(3, 10, 2)


@pytest.mark.parametrize("cell", [LiquidCell, LTCCell, CfCCell, WiredCfCCell])
def test_outputs_are_the_motor_neurons(cell: Any) -> None:
    torch.manual_seed(0)
    rnn = LiquidRNN(3, 10, cell=cell, wiring=WIRING, projection=MotorReadout(WIRING))
    x = torch.randn(4, 6, 3)
    out, h_n = rnn(x)
    bare = copy.deepcopy(rnn)
    bare.projection = None
    states, expected_h = bare(x)
    assert out.shape == (4, 6, 2)
    assert torch.equal(out, states[..., WIRING.motor])
    assert torch.equal(h_n, expected_h)  # of all neurons
    assert torch.equal(rnn.last(x)[0], out[:, -1])
    assert rnn(x[0])[0].shape == (6, 2)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in rnn.parameters())


def test_affine() -> None:
    readout = MotorReadout(WIRING, affine=True)
    h = torch.randn(5, 10)
    torch.testing.assert_close(readout(h), h[:, :2])
    with torch.no_grad():
        readout.weight.copy_(torch.tensor([2.0, 3.0]))  # type: ignore[union-attr]
        readout.bias.copy_(torch.tensor([0.5, -0.5]))  # type: ignore[union-attr]
    torch.testing.assert_close(
        readout(h), h[:, :2] * torch.tensor([2, 3]) + torch.tensor([0.5, -0.5])
    )
    assert repr(readout) == "MotorReadout(units=10, motor=0:2, weight, bias)"
    assert repr(MotorReadout(WIRING)) == "MotorReadout(units=10, motor=0:2)"
    other = MotorReadout(WIRING, affine=True)
    other.load_state_dict(readout.state_dict())
    torch.testing.assert_close(other(h), readout(h))
    other.reset_parameters()
    torch.testing.assert_close(other(h), h[:, :2])
    assert list(MotorReadout(WIRING).parameters()) == []


def test_motor_neurons_wherever_they_are() -> None:
    mask = torch.ones(5, 5, dtype=torch.bool)
    wiring = Wiring.from_mask(mask, layers={"inter": slice(0, 3), "motor": slice(3, 5)})
    h = torch.randn(2, 7, 5)
    assert torch.equal(MotorReadout(wiring)(h), h[..., 3:])


def test_what_it_does_not_take() -> None:
    for wiring in (Wiring.full(4), Wiring.random(4, sparsity=0.5)):
        with pytest.raises(ValueError, match="has no layer 'motor': take Wiring"):
            MotorReadout(wiring)
    with pytest.raises(ValueError, match="wiring must be a Wiring"):
        MotorReadout(2)  # type: ignore[arg-type]
    readout = MotorReadout(WIRING)
    both = LiquidRNN(3, 10, wiring=WIRING, bidirectional=True, projection=readout)
    with pytest.raises(ValueError, match=r"\(\.\.\., 10\), not \(24, 20\); of both directions"):
        both(torch.randn(4, 6, 3))
    with pytest.raises(ValueError, match="gives maps: projection must be a module that takes maps"):
        LiquidRNN(3, 10, cell=ConvLiquidCell, wiring=WIRING, projection=readout)
    assert isinstance(nn.Sequential(readout, nn.Linear(2, 1))(torch.randn(4, 10)), torch.Tensor)
