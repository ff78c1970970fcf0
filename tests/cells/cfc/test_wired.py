"""CfC cells in the layers of a wiring."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from liquid_ode.cells.cfc.cell import CfCCell
from liquid_ode.cells.cfc.forms import CfCForm, GatedForm, NoGateForm, PureForm
from liquid_ode.cells.cfc.wired import WiredCfCCell
from liquid_ode.cells.network.rnn import LiquidRNN
from liquid_ode.cells.wiring.wiring import Wiring
from solvers import Euler

FORMS = [GatedForm(), NoGateForm(), PureForm()]
INPUT, UNITS, MOTOR = 5, 12, 2


def policy() -> Wiring:
    return Wiring.auto_ncp(INPUT, UNITS, MOTOR)


def wired_cell(form: CfCForm = GatedForm(), *, mask_time: bool = True) -> WiredCfCCell:
    torch.manual_seed(0)
    return WiredCfCCell(INPUT, UNITS, wiring=policy(), form=form, mask_time=mask_time).double()


def step_of_layer(cell: CfCCell, x: Tensor, h: Tensor, d: Tensor, mask: Tensor) -> Tensor:
    """One layer from the equations, with the weights outside the mask cut off."""
    connected = torch.cat([mask.double(), torch.ones(len(mask), len(mask)).double()], dim=1)
    maps = []
    for name in cell.form.maps:
        layer = getattr(cell, name)
        maps.append(torch.cat([x, h], dim=1) @ (layer.weight * connected).t() + layer.bias)
    if isinstance(cell.form, PureForm):
        (q,) = maps
        return cell.A - cell.A * torch.exp(-d * (cell.w_tau.abs() + q.abs())) * q
    f, g, a, b = maps
    s = torch.sigmoid(a * d + b)
    first = f.tanh() if isinstance(cell.form, NoGateForm) else f.tanh() * (1 - s)
    return first + g.tanh() * s


@pytest.mark.parametrize("form", FORMS)
def test_a_step_goes_from_the_inputs_to_the_motor_neurons(form: CfCForm) -> None:
    wiring, cell = policy(), wired_cell(form)
    where, inputs = wiring.layers, wiring.inputs
    assert inputs is not None
    x, h = torch.randn(4, 3, INPUT).double(), torch.randn(3, UNITS).double()
    durations = torch.rand(4, 3).double()
    found = cell.sequence(x, h, durations)
    for step in range(4):
        d, new, given = durations[step].unsqueeze(1), torch.empty_like(h), x[step]
        masks = {
            "inter": inputs[where["inter"]],
            "command": wiring.recurrent[where["command"], where["inter"]],
            "motor": wiring.recurrent[where["motor"], where["command"]],
        }
        for name, mask in masks.items():
            layer = cell.layers[name]
            assert isinstance(layer, CfCCell)
            given = step_of_layer(layer, given, h[:, where[name]], d, mask)
            new[:, where[name]] = given
        h = new
        torch.testing.assert_close(found[step], h, rtol=1e-12, atol=1e-13)


def test_an_input_reaches_the_motor_neurons_within_a_step() -> None:
    cell = wired_cell()
    x = torch.zeros(1, INPUT).double().requires_grad_()
    motor = cell.wiring.motor
    assert motor == slice(0, MOTOR)
    (grad,) = torch.autograd.grad(cell(x)[:, motor].sum(), x)
    assert (grad != 0).all()


@pytest.mark.parametrize("mask_time", [False, True])
def test_weights_outside_the_wiring(mask_time: bool) -> None:
    cell = wired_cell(mask_time=mask_time)
    x = torch.randn(4, 3, INPUT).double()
    expected = cell.sequence(x)
    for name in ("ff1", "time_a"):
        with torch.no_grad():
            for layer in cell.layers.values():
                assert isinstance(layer, CfCCell)
                assert layer.wiring is not None
                assert layer.wiring.inputs is not None
                getattr(layer, name).weight[:, : layer.input_size][~layer.wiring.inputs] += 0.5
        change = (cell.sequence(x) - expected).abs().max()
        assert (change > 1e-4) == (name == "time_a" and not mask_time)


def test_a_row_does_not_depend_on_its_batch_and_a_stream_is_the_sequence() -> None:
    cell = wired_cell()
    x, durations = torch.randn(4, UNITS, INPUT).double(), torch.rand(4, UNITS).double()
    whole = cell.sequence(x, None, durations)
    torch.testing.assert_close(cell.sequence(x[:, :1], None, durations[:, :1]), whole[:, :1])
    h = None
    for step in range(4):
        h = cell(x[step], h, duration=durations[step].unsqueeze(1))
        torch.testing.assert_close(h, whole[step], rtol=1e-12, atol=1e-13)


def test_gradients() -> None:
    cell = wired_cell()
    x, h0 = torch.randn(2, 3, INPUT).double(), torch.randn(3, UNITS).double()
    leaves = (x.requires_grad_(), h0.requires_grad_())
    assert torch.autograd.gradcheck(cell.sequence, leaves, fast_mode=True)
    cell.sequence(*leaves).sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in cell.parameters())


def test_one_layer_and_under_liquid_rnn() -> None:
    torch.manual_seed(0)
    single = WiredCfCCell(INPUT, 4, wiring=Wiring.random(4, sparsity=0.5, input_size=INPUT))
    assert list(single.layers) == ["neurons"]
    partial = functools.partial(WiredCfCCell, form=NoGateForm())
    rnn = LiquidRNN(INPUT, UNITS, cell=partial, wiring=policy())
    out, h = rnn(torch.randn(3, 4, INPUT), durations=torch.rand(3, 4))
    assert out.shape == (3, 4, UNITS)
    assert h.shape == (1, 3, UNITS)
    with pytest.raises(ValueError, match="WiredCfCCell is a closed form, with no ODE to solve"):
        LiquidRNN(INPUT, UNITS, cell=WiredCfCCell, wiring=policy(), solver=Euler())


def test_bad_wirings() -> None:
    with pytest.raises(ValueError, match="a WiredCfCCell needs a wiring in layers"):
        WiredCfCCell(INPUT, UNITS)
    with pytest.raises(ValueError, match="wiring has 12 units, the cell has hidden_size=13"):
        WiredCfCCell(INPUT, 13, wiring=policy())
    with pytest.raises(ValueError, match="wiring takes 5 inputs, the cell has input_size=6"):
        WiredCfCCell(6, UNITS, wiring=policy())
    recurrent = policy().recurrent
    recurrent[0, UNITS - 1] = True  # from an inter neuron to a motor neuron
    skipping = Wiring.from_mask(recurrent, policy().inputs, layers=policy().layers)
    for wiring in (skipping, Wiring.from_mask(policy().recurrent, layers=policy().layers)):
        with pytest.raises(ValueError, match="the layers of a WiredCfCCell form a chain"):
            WiredCfCCell(INPUT, UNITS, wiring=wiring)
    with pytest.raises(ValueError, match="form must be a form"):
        WiredCfCCell(INPUT, UNITS, wiring=policy(), form="pure")  # type: ignore[arg-type]
