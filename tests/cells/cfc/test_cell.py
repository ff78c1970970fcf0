"""CfC cells: against an independent NumPy implementation, and their promises to users."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from liquid_ode.cells.cfc.cell import CfCCell
from liquid_ode.cells.cfc.forms import CfCForm, GatedForm, LeCunTanh, NoGateForm, PureForm
from liquid_ode.cells.network.rnn import LiquidRNN
from liquid_ode.cells.wiring.wiring import Wiring
from solvers import Euler

FORMS = [GatedForm(), NoGateForm(), PureForm()]
STEPS, BATCH, INPUT, HIDDEN = 4, 3, 5, 6


def double_cell(**options: Any) -> CfCCell:
    torch.manual_seed(0)
    return CfCCell(INPUT, HIDDEN, backbone_units=7, **options).double()


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def sequence() -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, an initial state, and durations."""
    torch.manual_seed(1)
    durations = 2 * torch.rand(STEPS, BATCH, dtype=torch.float64)
    return random(STEPS, BATCH, INPUT), random(BATCH, HIDDEN), durations


def numpy_state(cell: CfCCell, x: np.ndarray, h: np.ndarray, d: float) -> np.ndarray:
    """One step of one sample, from the equations."""
    p = {name: value.detach().numpy() for name, value in cell.named_parameters()}

    def linear(name: str, v: np.ndarray) -> np.ndarray:
        return p[f"{name}.weight"] @ v + p[f"{name}.bias"]

    v = np.concatenate([x, h])
    for index in range(0, len(cell.backbone), 2):
        v = 1.7159 * np.tanh(0.666 * linear(f"backbone.{index}", v))
    if isinstance(cell.form, PureForm):
        q, scale = linear("ff1", v), p["A"][0]
        return scale - scale * np.exp(-d * (np.abs(p["w_tau"][0]) + np.abs(q))) * q
    f, g = np.tanh(linear("ff1", v)), np.tanh(linear("ff2", v))
    s = 1 / (1 + np.exp(-(linear("time_a", v) * d + linear("time_b", v))))
    return f + g * s if isinstance(cell.form, NoGateForm) else f * (1 - s) + g * s


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_agrees_with_numpy(form: CfCForm, layers: int) -> None:
    cell = double_cell(form=form, backbone_layers=layers)
    x, h0, durations = sequence()
    found = cell.sequence(x, h0, durations).detach().numpy()
    alike = cell.sequence(x, h0).detach().numpy()
    for sample in range(BATCH):
        h, of_ones = h0[sample].numpy(), h0[sample].numpy()
        for step in range(STEPS):
            h = numpy_state(cell, x[step, sample].numpy(), h, float(durations[step, sample]))
            of_ones = numpy_state(cell, x[step, sample].numpy(), of_ones, 1.0)
            np.testing.assert_allclose(found[step, sample], h, rtol=1e-12, atol=1e-13)
            np.testing.assert_allclose(alike[step, sample], of_ones, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
def test_first_and_second_derivatives(form: CfCForm) -> None:
    cell = double_cell(form=form)
    x, h0, durations = sequence()
    names = [name for name, _ in cell.named_parameters()]

    def states(x: Tensor, h0: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))

        class Sequence(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.cell = cell

            def forward(self) -> Tensor:
                return self.cell.sequence(x, h0, durations[:2])

        whole = {f"cell.{name}": value for name, value in given.items()}
        return torch.func.functional_call(Sequence(), whole, ())

    leaves = [x[:2], h0, *(value.detach().clone() for value in cell.parameters())]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(states, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(states, leaves, fast_mode=True)


@pytest.mark.parametrize("form", FORMS)
def test_gradient_of_durations(form: CfCForm) -> None:
    cell = double_cell(form=form)
    x, h0, durations = sequence()
    timed = functools.partial(cell.sequence, x, h0)
    assert torch.autograd.gradcheck(timed, durations.clone().requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [1, 3, HIDDEN])
def test_a_row_does_not_depend_on_its_batch(form: CfCForm, batch: int) -> None:
    """Also where batch = hidden size, where ncps spreads a sample's time over the features."""
    cell = double_cell(form=form)
    x, h0 = random(STEPS, HIDDEN, INPUT), random(HIDDEN, HIDDEN)
    durations = torch.rand(STEPS, HIDDEN, dtype=torch.float64)
    whole = cell.sequence(x, h0, durations)
    some = cell.sequence(x[:, :batch], h0[:batch], durations[:, :batch])
    torch.testing.assert_close(some, whole[:, :batch], rtol=1e-12, atol=1e-13)
    for row in range(batch):
        h = h0[row]
        for step in range(STEPS):
            h = cell(x[step, row], h, duration=float(durations[step, row]))
        torch.testing.assert_close(h, whole[-1, row], rtol=1e-12, atol=1e-13)


def test_durations_matter_and_one_for_all_is_the_same_as_one_each() -> None:
    cell = double_cell()
    x, h0, durations = sequence()
    ones = cell.sequence(x, h0, torch.ones(STEPS, BATCH, dtype=torch.float64))
    torch.testing.assert_close(cell.sequence(x, h0), ones, rtol=1e-12, atol=1e-13)
    assert (cell.sequence(x, h0, durations) - ones).abs().max() > 0.01
    one = cell(x[0], h0, duration=torch.tensor(0.3, dtype=torch.float64))
    torch.testing.assert_close(one, cell(x[0], h0, duration=0.3), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
def test_with_and_without_a_gradient_and_step_by_step(form: CfCForm) -> None:
    cell = double_cell(form=form, backbone_layers=2)
    x, _, durations = sequence()
    recorded = cell.sequence(x, None, durations)
    with torch.no_grad():
        torch.testing.assert_close(cell.sequence(x, None, durations), recorded)
    with torch.inference_mode():
        torch.testing.assert_close(cell.sequence(x, None, durations), recorded.detach())
    h = None
    for step in range(STEPS):
        h = cell(x[step], h, duration=durations[step].unsqueeze(-1))
        torch.testing.assert_close(h, recorded[step], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("activation", [nn.SiLU, nn.ReLU, functools.partial(nn.PReLU, init=0.1)])
def test_other_activations(activation: Callable[[], nn.Module]) -> None:
    cell = double_cell(activation=activation, backbone_layers=2)
    x, h, _ = sequence()
    features = cell.backbone(torch.cat([x[0], h], dim=1))
    f, g, a, b = (getattr(cell, name)(features) for name in cell.form.maps)
    s = torch.sigmoid(a * 0.4 + b)
    expected = torch.tanh(f) * (1 - s) + torch.tanh(g) * s
    found = cell(x[0], h, duration=0.4)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    found.sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in cell.parameters())


def test_dropout_acts_after_every_backbone_layer_but_the_first() -> None:
    cell = double_cell(backbone_dropout=0.5, backbone_layers=3)
    plain = double_cell(backbone_layers=3)
    x, h, _ = sequence()
    expected = plain(x[0], h)
    torch.testing.assert_close(cell.eval()(x[0], h), expected, rtol=1e-12, atol=1e-13)
    linears = [layer for layer in cell.backbone if isinstance(layer, nn.Linear)]

    def dropped() -> Tensor:
        features = LeCunTanh()(linears[0](torch.cat([x[0], h], dim=1)))
        for layer in linears[1:]:
            features = torch.dropout(LeCunTanh()(layer(features)), 0.5, True)
        f, g, a, b = (getattr(cell, name)(features) for name in cell.form.maps)
        s = torch.sigmoid(a + b)
        return torch.tanh(f) * (1 - s) + torch.tanh(g) * s

    for monte_carlo in (False, True):  # training, and dropout alone in training
        cell.train(not monte_carlo)
        for module in cell.modules():
            if isinstance(module, nn.Dropout):
                module.train()
        torch.manual_seed(3)
        found = cell(x[0], h)
        torch.manual_seed(3)
        torch.testing.assert_close(found, dropped(), rtol=1e-12, atol=1e-13)
        assert (found - expected).abs().max() > 0.01
    for module in cell.train().modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    torch.testing.assert_close(cell(x[0], h), expected, rtol=1e-12, atol=1e-13)
    with pytest.warns(UserWarning, match=r"backbone_layers=1 leaves it without effect"):
        CfCCell(3, 4, backbone_dropout=0.5)


def test_weights_start_uniform_in_xaviers_range() -> None:
    torch.manual_seed(0)
    cell = CfCCell(40, 50, form=GatedForm())
    for weight in (value for value in cell.parameters() if value.ndim == 2):
        bound = (6 / sum(weight.shape)) ** 0.5
        assert 0.99 * bound < float(weight.detach().abs().max()) <= bound


@pytest.mark.parametrize("form", FORMS)
def test_weights_outside_the_wiring_are_never_used_and_never_drift(form: CfCForm) -> None:
    wiring = Wiring.random(HIDDEN, sparsity=0.6, input_size=INPUT)
    cell = double_cell(wiring=wiring, form=form)
    inputs = wiring.inputs
    assert inputs is not None
    absent = ~torch.cat([inputs, wiring.recurrent], dim=1)
    weights = [getattr(cell, name).weight for name in form.maps]
    x, h0, _ = sequence()
    optimizer = torch.optim.AdamW(cell.parameters(), lr=0.05, weight_decay=0.1)
    before = [weight.detach().clone() for weight in weights]
    for _ in range(3):
        optimizer.zero_grad()
        cell.sequence(x, h0).square().sum().backward()
        optimizer.step()
    for weight, old in zip(weights, before, strict=True):
        assert weight.detach()[absent].abs().sum() == 0
        assert (weight.detach() != old)[~absent].all()
    expected = cell.sequence(x, h0)
    with torch.no_grad():
        for weight in weights:
            weight[absent] = 1e3
    torch.testing.assert_close(cell.sequence(x, h0), expected)


def test_a_wiring_that_leaves_out_the_maps_of_time() -> None:
    cell = double_cell(wiring=Wiring.random(HIDDEN, sparsity=0.6), mask_time=False)
    assert cell.time_a.weight.all()
    assert cell.time_b.weight.all()
    assert not cell.ff1.weight[:, INPUT:].all()
    x, h0, _ = sequence()
    before = cell.sequence(x, h0)
    with torch.no_grad():
        cell.time_a.weight += 0.5 * ~torch.cat([cell.ff1.weight.bool()], dim=1)
    assert (cell.sequence(x, h0) - before).abs().max() > 1e-3


def test_under_liquid_rnn() -> None:
    torch.manual_seed(0)
    rnn = LiquidRNN(INPUT, HIDDEN, cell=CfCCell)
    assert isinstance(rnn.cells[0], CfCCell)
    made = LiquidRNN(INPUT, HIDDEN, 2, cell=functools.partial(CfCCell, form=PureForm()))
    x = torch.randn(BATCH, STEPS, INPUT)
    out, h = made(x, durations=torch.rand(BATCH, STEPS))
    assert out.shape == (BATCH, STEPS, HIDDEN)
    assert h.shape == (2, BATCH, HIDDEN)
    torch.testing.assert_close(rnn(x)[0], rnn.cells[0].sequence(x.transpose(0, 1)).transpose(0, 1))
    with pytest.raises(ValueError, match="CfCCell is a closed form, with no ODE to solve"):
        LiquidRNN(INPUT, HIDDEN, cell=CfCCell, solver=Euler())


def test_recomputed_and_packed_sequences() -> None:
    cell = double_cell()
    plain, again = (
        LiquidRNN(INPUT, HIDDEN, cell=lambda *_: cell, recompute=recompute)
        for recompute in (False, True)
    )
    packed = nn.utils.rnn.pack_sequence([random(5, INPUT), random(3, INPUT), random(1, INPUT)])
    gradients = []
    for rnn in (plain, again):
        _, h = rnn(packed)
        gradients.append(torch.autograd.grad(h.square().sum(), list(cell.parameters())))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-13)
    end = cell.sequence(packed.data[[1, 4, 6], None])[-1]  # the second of them, by hand
    torch.testing.assert_close(h[0, 1], end[0], rtol=1e-12, atol=1e-13)


def test_lower_precision() -> None:
    torch.manual_seed(0)
    cell = CfCCell(INPUT, HIDDEN)
    x = torch.randn(STEPS, BATCH, INPUT, requires_grad=True)
    expected = cell.sequence(x)
    expected.square().sum().backward()
    wanted = [value.grad for value in cell.parameters()]
    cell.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cell.sequence(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.03)
    found.float().square().sum().backward()
    for value, grad in zip(cell.parameters(), wanted, strict=True):
        assert grad is not None
        torch.testing.assert_close(value.grad, grad, rtol=0.1, atol=0.1)


def test_bad_arguments() -> None:
    for layers in (-1, 1.5):
        with pytest.raises(ValueError, match="backbone_layers must be a whole number"):
            CfCCell(3, 4, backbone_layers=layers)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="backbone_units must be a whole number"):
        CfCCell(3, 4, backbone_units=0)
    with pytest.raises(ValueError, match=r"backbone_dropout must lie in \[0, 1\), not 1.0"):
        CfCCell(3, 4, backbone_dropout=1.0)
    with pytest.raises(ValueError, match="form must be a form such as GatedForm"):
        CfCCell(3, 4, form="pure")  # type: ignore[arg-type]
    for activation in ("silu", nn.SiLU(), lambda: 3):
        with pytest.raises(ValueError, match="activation must make modules"):
            CfCCell(3, 4, activation=activation)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="wiring has 5 units, the cell has hidden_size=4"):
        CfCCell(3, 4, wiring=Wiring.full(5))
    with pytest.raises(ValueError, match="with a wiring backbone_layers must be 0, not 2"):
        CfCCell(3, 4, wiring=Wiring.full(4), backbone_layers=2)
    with pytest.raises(ValueError, match="leave out solver=Euler"):
        CfCCell(3, 4, solver=Euler())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="duration"):
        CfCCell(3, 4)(torch.zeros(2, 3), duration=-1.0)
