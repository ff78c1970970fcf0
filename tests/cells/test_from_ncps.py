"""Weights of ncps: the converted model gives the same outputs, with ncps as the oracle."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from liquid_ode.cells.cfc.cell import CfCCell
from liquid_ode.cells.cfc.wired import WiredCfCCell
from liquid_ode.cells.from_ncps import from_ncps
from liquid_ode.cells.ltc.cell import LTCCell
from liquid_ode.cells.mixed_memory import MixedMemoryCell
from liquid_ode.cells.network.rnn import LiquidRNN

pytest.importorskip("ncps")

from ncps import torch as ncps_torch
from ncps import wirings

BATCH, STEPS, INPUT, UNITS, MOTOR = 4, 5, 3, 10, 2
MODES = ["default", "no_gate", "pure"]
WIRINGS: dict[str, Callable[[], Any]] = {
    "auto_ncp": lambda: wirings.AutoNCP(UNITS, MOTOR),
    "ncp": lambda: wirings.NCP(5, 3, MOTOR, 3, 2, 4, 2),
    "random": lambda: wirings.Random(UNITS, sparsity_level=0.6),
    "full": lambda: wirings.FullyConnected(UNITS),
}
TIGHT = {"rtol": 1e-11, "atol": 1e-12}


def ready(module: Any) -> Any:
    """In double precision, with every parameter away from its special initial value."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if "mask" not in name:
                value.add_(0.1 * torch.rand_like(value))
    return module.double()


def sequences() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(BATCH, STEPS, INPUT, dtype=torch.float64)
    return x, 0.1 + 2 * torch.rand(BATCH, STEPS, dtype=torch.float64)


def theirs_one_at_a_time(
    module: Any, x: Tensor, h: Tensor, durations: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """ncps sample by sample, for it takes no batch of durations."""
    outs, ends = [], []
    for row in range(len(x)):
        times = None if durations is None else durations[row : row + 1]
        out, end = module(x[row : row + 1], h[row : row + 1], timespans=times)
        outs.append(out)
        ends.append(end)
    return torch.cat(outs), torch.cat(ends)


def as_ours(rnn: LiquidRNN, h: Tensor) -> Tensor:
    """ncps' state in our order: motor, command, inter, where it counts layers from the inputs."""
    cell = rnn.cells[0]
    if not isinstance(cell, WiredCfCCell):
        return h
    sizes = [where.stop - where.start for where in reversed(cell.wiring.layers.values())]
    return torch.cat(h.split(sizes, dim=1)[::-1], dim=1)


def check(module: Any, tolerance: dict[str, float] = TIGHT) -> LiquidRNN:
    """The converted model against it: outputs and states."""
    rnn = from_ncps(module)
    assert isinstance(rnn, LiquidRNN)
    x, durations = sequences()
    h = torch.rand(BATCH, UNITS, dtype=torch.float64)
    for given, times in itertools.product((False, True), (None, durations)):
        start = h if given else torch.zeros_like(h)
        ours = rnn(x, as_ours(rnn, start)[None] if given else None, durations=times)
        theirs = theirs_one_at_a_time(module, x, start, times)
        torch.testing.assert_close(ours[0], theirs[0], **tolerance)
        torch.testing.assert_close(ours[1][0], as_ours(rnn, theirs[1]), **tolerance)
    single, other = rnn.float(), module.float()
    torch.testing.assert_close(
        single(x.float(), durations=durations.float())[0],
        theirs_one_at_a_time(other, x.float(), torch.zeros(BATCH, UNITS), durations.float())[0],
        rtol=1e-5,
        atol=1e-5,
    )
    return rnn


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_cfc(mode: str, layers: int) -> None:
    module = ncps_torch.CfC(INPUT, UNITS, mode=mode, backbone_layers=layers, backbone_units=7)
    rnn = check(ready(module))
    assert isinstance(rnn.cells[0], CfCCell)


@pytest.mark.parametrize("activation", ["silu", "relu", "tanh", "gelu", "lecun_tanh"])
def test_activations_of_cfc(activation: str) -> None:
    check(ready(ncps_torch.CfC(INPUT, UNITS, activation=activation, backbone_layers=2)))


def test_a_dropout_of_cfc_is_kept() -> None:
    module = ncps_torch.CfC(INPUT, UNITS, backbone_layers=3, backbone_dropout=0.25)
    rnn = check(ready(module).eval())
    cell = rnn.cells[0]
    assert isinstance(cell, CfCCell)
    assert not rnn.training
    ours = from_ncps(module.train())
    assert isinstance(ours, LiquidRNN)
    assert ours.training
    x, _ = sequences()
    torch.manual_seed(0)
    expected, _ = module(x.float()[:, :1], torch.zeros(BATCH, UNITS))
    torch.manual_seed(0)
    torch.testing.assert_close(ours(x.float()[:, :1])[0], expected, rtol=1e-5, atol=1e-5)
    assert (ours.eval()(x.float()[:, :1])[0] - expected).abs().max() > 1e-3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("projected", [None, 6])
def test_wired_cfc(mode: str, wiring: str, projected: int | None) -> None:
    module = ncps_torch.CfC(INPUT, WIRINGS[wiring](), mode=mode, proj_size=projected)
    rnn = check(ready(module))
    cell = rnn.cells[0]
    assert isinstance(cell, WiredCfCCell)
    if "ncp" in wiring:
        assert cell.wiring.motor == slice(0, MOTOR)
        for layer in cell.layers.values():
            assert isinstance(layer, CfCCell)
            assert layer.wiring is not None
            mask = layer.wiring.inputs
            assert mask is not None
            assert not layer.ff1.weight[:, : layer.input_size][~mask].any()


def test_projection_and_time_first() -> None:
    module = ready(ncps_torch.CfC(INPUT, UNITS, proj_size=4, batch_first=False))
    rnn = from_ncps(module)
    assert isinstance(rnn, LiquidRNN)
    x, _ = sequences()
    out, _ = module(x.transpose(0, 1), torch.zeros(BATCH, UNITS, dtype=torch.float64))
    torch.testing.assert_close(rnn(x.transpose(0, 1))[0], out)
    torch.testing.assert_close(rnn.last(x.transpose(0, 1))[0], out[-1])


def test_a_sample_s_time_where_the_batch_is_as_large_as_the_state() -> None:
    """ncps takes the times of a batch for times of neurons there: ours does not."""
    module = ready(ncps_torch.CfC(INPUT, BATCH))
    rnn = from_ncps(module)
    x, durations = sequences()
    start = torch.zeros(BATCH, BATCH, dtype=torch.float64)
    expected, _ = theirs_one_at_a_time(module, x, start, durations)
    torch.testing.assert_close(rnn(x, durations=durations)[0], expected)
    assert (module(x, start, timespans=durations)[0] - expected).abs().max() > 0.01


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("implicit", [False, True])
def test_ltc(wiring: str, implicit: bool) -> None:
    module = ready(ncps_torch.LTC(INPUT, WIRINGS[wiring](), implicit_param_constraints=implicit))
    rnn = check(module)
    cell = rnn.cells[0]
    assert isinstance(cell, LTCCell)
    if "ncp" in wiring:
        assert cell.wiring is not None
        assert list(cell.wiring.layers) == ["motor", "command", "inter"]


@pytest.mark.parametrize("inputs", [None, "linear", "affine"])
@pytest.mark.parametrize("outputs", [None, "linear", "affine"])
@pytest.mark.parametrize("motor", [MOTOR, UNITS])
def test_mappings_of_ltc(inputs: str | None, outputs: str | None, motor: int) -> None:
    wiring = wirings.FullyConnected(UNITS, motor)
    options = {"input_mapping": inputs, "output_mapping": outputs}
    rnn = check(ready(ncps_torch.LTC(INPUT, wiring, **options)))
    assert (rnn.projection is None) == (outputs is None and motor == UNITS)


@pytest.mark.parametrize("options", [{"ode_unfolds": 3}, {"epsilon": 0.3}, {}], ids=str)
def test_options_of_ltc(options: dict[str, Any]) -> None:
    rnn = check(ready(ncps_torch.LTC(INPUT, UNITS, **options)))
    cell = rnn.cells[0]
    assert isinstance(cell, LTCCell)
    assert cell.wiring is None
    assert cell.solver == LTCCell(3, 4).solver.with_steps(options.get("ode_unfolds", 6))


def test_gradients_agree() -> None:
    for module in (
        ready(ncps_torch.CfC(INPUT, WIRINGS["ncp"]())),
        ready(ncps_torch.LTC(INPUT, WIRINGS["ncp"]())),
        ready(ncps_torch.CfC(INPUT, UNITS, backbone_layers=2)),
    ):
        rnn = from_ncps(module)
        x, durations = sequences()
        start = torch.zeros(BATCH, UNITS, dtype=torch.float64)
        x.requires_grad_()
        theirs, _ = theirs_one_at_a_time(module, x, start, durations)
        (expected,) = torch.autograd.grad(theirs.square().sum(), x)
        (found,) = torch.autograd.grad(rnn(x, durations=durations)[0].square().sum(), x)
        torch.testing.assert_close(found, expected, **TIGHT)


def test_cells_become_cells() -> None:
    x, h = sequences()[0][:, 0], torch.rand(BATCH, UNITS, dtype=torch.float64)
    dense = ready(ncps_torch.CfCCell(INPUT, UNITS))
    wiring = WIRINGS["ncp"]()
    wired = ready(ncps_torch.WiredCfCCell(INPUT, wiring))
    ltc = ready(ncps_torch.LTCCell(WIRINGS["ncp"](), INPUT))
    for module, kind in ((dense, CfCCell), (wired, WiredCfCCell), (ltc, LTCCell)):
        ours = from_ncps(module)
        assert type(ours) is kind
        assert ours(x, h).dtype == torch.float64
    torch.testing.assert_close(from_ncps(dense)(x, h), dense(x, h, 1.0)[1])
    torch.testing.assert_close(from_ncps(ltc)(x, h, duration=0.3), ltc(x, h, 0.3)[1], **TIGHT)


def test_a_sparsity_mask_of_a_single_cell() -> None:
    mask = (torch.rand(INPUT + UNITS, UNITS) < 0.5).numpy()
    options = {"backbone_layers": 0, "sparsity_mask": mask}
    module = ready(ncps_torch.CfCCell(INPUT, UNITS, **options))
    x, h = sequences()[0][:, 0], torch.rand(BATCH, UNITS, dtype=torch.float64)
    torch.testing.assert_close(from_ncps(module)(x, h), module(x, h, 1.0)[0])
    module = ncps_torch.CfCCell(INPUT, UNITS, sparsity_mask=mask)
    with pytest.raises(ValueError, match="sparsity_mask and a backbone has no counterpart"):
        from_ncps(module)


def test_a_state_dict_of_a_dense_cell_loads_as_it_is() -> None:
    options = {"backbone_layers": 3, "backbone_dropout": 0.25}
    theirs = ncps_torch.CfCCell(INPUT, UNITS, **options).eval()
    ours = CfCCell(INPUT, UNITS, backbone_layers=3, backbone_dropout=0.25).eval()
    ours.load_state_dict(theirs.state_dict())
    x, h = torch.randn(BATCH, INPUT), torch.randn(BATCH, UNITS)
    torch.testing.assert_close(ours(x, h), theirs(x, h, 1.0)[0], rtol=1e-5, atol=1e-5)


def test_the_copy_is_independent() -> None:
    module = ready(ncps_torch.LTC(INPUT, WIRINGS["ncp"]()))
    rnn, before = from_ncps(module), {k: v.clone() for k, v in module.state_dict().items()}
    with torch.no_grad():
        for value in rnn.parameters():
            value.add_(1.0)
    torch.testing.assert_close(dict(module.state_dict()), before, rtol=0, atol=0)


def test_a_clipped_conductance_of_zero() -> None:
    module = ready(ncps_torch.LTC(INPUT, UNITS, implicit_param_constraints=False))
    with torch.no_grad():
        module.rnn_cell.w[0] = -1.0
        module.rnn_cell.gleak[1] = -1.0
    with pytest.raises(ValueError, match=r"10 of the LTC's w are negative.*apply_weight_constr"):
        from_ncps(module)
    module.rnn_cell.apply_weight_constraints()
    check(module, {"rtol": 1e-5, "atol": 1e-6})  # 0 becomes 1e-8
    for value in from_ncps(module).parameters():
        assert torch.isfinite(value).all()


MIXED: dict[str, Callable[[], Any]] = {
    "cfc": lambda: ncps_torch.CfC(INPUT, UNITS, mixed_memory=True),
    "cfc, pure, projected": lambda: ncps_torch.CfC(
        INPUT, UNITS, mixed_memory=True, mode="pure", proj_size=4
    ),
    "cfc, wired": lambda: ncps_torch.CfC(INPUT, WIRINGS["auto_ncp"](), mixed_memory=True),
    "ltc": lambda: ncps_torch.LTC(INPUT, UNITS, mixed_memory=True),
    "ltc, wired": lambda: ncps_torch.LTC(INPUT, WIRINGS["ncp"](), mixed_memory=True),
}


@pytest.mark.parametrize("name", MIXED)
def test_mixed_memory(name: str) -> None:
    module = ready(MIXED[name]())
    rnn = from_ncps(module)
    assert isinstance(rnn, LiquidRNN)
    cell = rnn.cells[0]
    assert isinstance(cell, MixedMemoryCell)
    of_cell = LiquidRNN(INPUT, UNITS, cell=lambda *_: cell.cell)
    x, durations = sequences()
    for row in range(BATCH):
        pair = torch.rand(2, 1, UNITS, dtype=torch.float64).unbind()
        start = torch.cat([as_ours(of_cell, part) for part in pair], dim=1)
        one = slice(row, row + 1)
        for times in (None, durations[one]):
            out, end = module(x[one], pair, timespans=times)
            found, found_end = rnn(x[one], start[None], durations=times)
            torch.testing.assert_close(found, out, **TIGHT)
            expected = torch.cat([as_ours(of_cell, part) for part in end], dim=1)
            torch.testing.assert_close(found_end[0], expected, **TIGHT)
    single, other = rnn.float(), module.float()
    expected, _ = other(x.float())
    torch.testing.assert_close(single(x.float())[0], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(single.last(x.float())[0], expected[:, -1], rtol=1e-5, atol=1e-5)


def test_what_has_no_counterpart() -> None:
    for module in (nn.GRU(3, 4), CfCCell(3, 4)):
        with pytest.raises(ValueError, match=r"takes a module of ncps.torch, one of CfC, LTC"):
            from_ncps(module)


def test_ncps_is_not_imported_by_the_package() -> None:
    code = "import sys, liquid_ode.cells.from_ncps; print('ncps' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("kind", ["CfC", "LTC"])
def test_what_is_frozen_stays_frozen(kind: str) -> None:
    theirs = getattr(ncps_torch, kind)(3, 7)
    assert all(parameter.requires_grad for parameter in from_ncps(theirs).parameters())
    theirs.requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in from_ncps(theirs).parameters())
