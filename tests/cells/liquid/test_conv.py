"""The convolutional liquid cell: against NumPy and SciPy, the LiquidCell, and its promises."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from torch import Tensor

import solvers
from liquid_ode import ConvLiquidCell, ConvLiquidField
from liquid_ode.cells.liquid.cell import LiquidCell
from liquid_ode.cells.wiring.wiring import Wiring
from solvers import Euler, ExponentialEuler, Uniform

DOUBLE = torch.float64


def double_cell(solver: solvers.Solver = Euler(), **options: Any) -> ConvLiquidCell:
    """3 channels to 4, with a recurrent kernel that is not zero around its centre."""
    torch.manual_seed(0)
    cell = ConvLiquidCell(3, 4, solver=solver, **options).double()
    with torch.no_grad():
        cell.recurrent += 0.1 * torch.randn_like(cell.recurrent)
    return cell


def maps(*batch: int, channels: int = 3) -> Tensor:
    """Maps that are neither square nor as large as a batch or a number of channels."""
    return torch.randn(*batch, channels, 6, 5, dtype=DOUBLE)


def convolved(weight: np.ndarray, image: np.ndarray) -> np.ndarray:
    """A convolution layer's map: ``(out, in, k, k)`` and ``(in, H, W)`` to ``(out, H, W)``."""
    return np.stack([
        sum(correlate2d(*pair, mode="same") for pair in zip(image, row, strict=True))
        for row in weight
    ])  # fmt: skip


def numpy_cell(cell: ConvLiquidCell, x: np.ndarray, h: np.ndarray, dts: list[float]) -> np.ndarray:
    """tau(x) dh/dt = -h + tanh(W_rec * h + W_in * x + b) by explicit Euler, sample by sample."""
    p = {name: value.detach().numpy() for name, value in cell.named_parameters()}

    def sigmoid(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-v))

    def of_pixels(layer: int, image: np.ndarray) -> np.ndarray:
        weight, bias = p[f"tau_mlp.{layer}.weight"], p[f"tau_mlp.{layer}.bias"]
        return np.einsum("oi,ihw->ohw", weight[:, :, 0, 0], image) + bias[:, None, None]

    ends = []
    for image, state in zip(x, h, strict=True):
        inner = of_pixels(0, image)
        gate = sigmoid(of_pixels(2, inner * sigmoid(inner)))
        tau = np.minimum(np.maximum(p["tau_base"][:, None, None] * (0.5 + gate), 0.1), 5.0)
        drive = convolved(p["inputs.weight"], image) + p["inputs.bias"][:, None, None]
        for dt in dts:
            slope = -state + np.tanh(convolved(p["recurrent"], state) + drive)
            state = state + dt / tau * slope  # noqa: PLW2901
        ends.append(state)
    return np.stack(ends)


@pytest.mark.parametrize(
    "kernels",
    [
        {},
        {"kernel_size": 1},
        {"kernel_size": 5},
        {"kernel_size": 3, "recurrent_kernel_size": 1},
        {"kernel_size": 1, "recurrent_kernel_size": 5},
    ],
    ids=str,
)
def test_agrees_with_numpy(kernels: dict[str, int]) -> None:
    cell = double_cell(Euler(steps=6, step_size=Uniform()), **kernels)
    with torch.no_grad():
        cell.tau_base.uniform_(0.05, 8.0)  # so that the clamp acts at both ends
        assert cell.inputs.bias is not None
        cell.inputs.bias.normal_()
    x, h = maps(2), maps(2, channels=4)
    expected = numpy_cell(cell, x.numpy(), h.numpy(), [1.5 / 6] * 6)
    actual = cell(x, h, duration=1.5).detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-13)


def test_with_kernels_of_one_pixel_it_is_the_liquid_cell_at_every_pixel() -> None:
    cell = double_cell(solvers.get("heun"), kernel_size=1)
    flat = LiquidCell(3, 4, solver=cell.solver).double()
    flat.load_state_dict({
        name: value if value.ndim < 4 else value[:, :, 0, 0]
        for name, value in cell.state_dict().items()
    })  # fmt: skip
    x, h, duration = maps(7), maps(7, channels=4), torch.rand(7, 1, 1, 1, dtype=DOUBLE)
    pixels = flat(
        x.movedim(1, -1), h.movedim(1, -1), duration=duration.movedim(1, -1).expand(7, 6, 5, 1)
    )
    torch.testing.assert_close(
        cell(x, h, duration=duration), pixels.movedim(-1, 1), rtol=1e-12, atol=1e-13
    )
    torch.testing.assert_close(
        cell.time_constant(x).movedim(1, -1), flat.time_constant(x.movedim(1, -1))
    )


def test_at_the_start_no_state_spreads_and_the_recurrent_matrix_is_orthogonal() -> None:
    weight = ConvLiquidCell(3, 8, kernel_size=5).recurrent.detach().double()
    centre = weight[:, :, 2, 2]
    gram = 0.64 * torch.eye(8, dtype=DOUBLE)
    torch.testing.assert_close(centre @ centre.t(), gram, rtol=1e-6, atol=1e-6)
    assert weight.abs().sum() == centre.abs().sum()


def test_the_dynamics_see_the_neighbours_and_no_more() -> None:
    cell = double_cell(Euler(steps=1))
    x = torch.zeros(1, 3, 9, 9, dtype=DOUBLE)
    h = torch.zeros(1, 4, 9, 9, dtype=DOUBLE)
    around = torch.zeros(9, 9, dtype=torch.bool)
    around[3:6, 3:6] = True
    for changed in (x, h):
        before = cell(x, h)
        changed[0, 0, 4, 4] = 1.0
        touched = ((cell(x, h) - before).abs() > 1e-12)[0].any(0)  # beyond rounding
        assert torch.equal(touched, around)


def test_time_constant_stays_in_its_range() -> None:
    cell = double_cell()
    with torch.no_grad():
        cell.tau_base.copy_(torch.tensor([-3.0, 0.0, 1.0, 1e9]))
    tau = cell.time_constant(100 * maps(2, 3))
    assert tau.shape == (2, 3, 4, 6, 5)
    assert tau.min() == 0.1
    assert tau.max() == 5.0
    assert tau[:, :, 2].std(dim=(-1, -2)).min() > 0  # it is that of a pixel, not of an image


@pytest.mark.parametrize("name", ["euler", "heun", "exponential_euler", "rk4", "dormand_prince"])
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_a_sample_does_not_depend_on_its_batch(name: str, batch: int) -> None:
    cell = double_cell(solvers.get(name))
    x, h = maps(6), maps(6, channels=4)
    whole = cell(x, h)
    close = {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(cell(x[:batch], h[:batch]), whole[:batch], **close)
    shaped = cell(x.unflatten(0, (2, 3)), h.unflatten(0, (2, 3)))
    torch.testing.assert_close(shaped.flatten(0, 1), whole, **close)
    torch.testing.assert_close(cell(x[0], h[0]), whole[0], **close)
    order = torch.randperm(6)
    torch.testing.assert_close(cell(x[order], h[order]), whole[order], **close)


@pytest.mark.parametrize("name", ["euler", "exponential_euler", "rk4", "tsit5"])
def test_durations_per_sample(name: str) -> None:
    cell = double_cell(solvers.get(name))
    x = maps(4)
    durations = torch.tensor([0.0, 0.3, 1.0, 2.5], dtype=DOUBLE)
    together = cell(x, duration=durations.view(4, 1, 1, 1))
    alone = [cell(row, duration=float(time)) for row, time in zip(x, durations, strict=True)]
    # An error-controlled solve starts with another step in another unit of time.
    tolerance = 1e-4 if name == "tsit5" else 1e-12
    torch.testing.assert_close(together, torch.stack(alone), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("solver", [Euler(), ExponentialEuler(3)], ids=repr)
def test_a_sequence_is_its_steps(solver: solvers.Solver) -> None:
    cell = double_cell(solver)
    x, h, durations = maps(5, 2), maps(2, channels=4), torch.rand(5, 2, dtype=DOUBLE)
    for given in (None, durations):
        whole = cell.sequence(x, h, given)
        state = h
        for step in range(5):
            time = 1.0 if given is None else given[step].view(2, 1, 1, 1)
            state = cell(x[step], state, duration=time)
            torch.testing.assert_close(whole[step], state, rtol=1e-12, atol=1e-13)


def test_gradients() -> None:
    cell = double_cell(Euler(steps=2, step_size=Uniform()))
    x = torch.randn(2, 3, 3, 4, dtype=DOUBLE, requires_grad=True)
    h = torch.randn(2, 4, 3, 4, dtype=DOUBLE, requires_grad=True)
    time = torch.rand(2, 1, 1, 1, dtype=DOUBLE, requires_grad=True)
    names, values = zip(*cell.named_parameters(), strict=True)

    def function(x: Tensor, h: Tensor, time: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(cell, given, (x, h), {"duration": time})

    assert torch.autograd.gradcheck(function, (x, h, time, *values))
    cell(x, h).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in cell.parameters())


def test_what_does_not_depend_on_the_state_is_computed_once() -> None:
    cell = double_cell(Euler(steps=7))
    calls: list[str] = []
    cell.tau_mlp.register_forward_hook(lambda *_: calls.append("tau"))
    assert len(cell.fields(maps(5, 2))) == 5
    assert calls == ["tau"]
    field = cell.field(maps(2))
    solution = cell.solver.solve(field, torch.zeros_like(field.drive))
    assert solution.stats.nfe == 7
    assert calls == ["tau"] * 2


@pytest.mark.parametrize("wired_inputs", [False, True])
def test_weights_outside_the_wiring_are_never_used_and_never_drift(wired_inputs: bool) -> None:
    recurrent = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]]).bool()
    inputs = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1]]).bool()
    wiring = Wiring.from_mask(recurrent, inputs if wired_inputs else None)
    torch.manual_seed(0)
    cell = ConvLiquidCell(3, 4, wiring=wiring).double()
    x = maps(5)
    optimizer = torch.optim.AdamW(cell.parameters(), lr=0.05, weight_decay=0.1)
    before = cell.recurrent.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        cell(x).square().sum().backward()
        optimizer.step()
    assert cell.recurrent.detach()[~recurrent].abs().sum() == 0
    assert (cell.recurrent.detach() != before)[recurrent].all()
    assert cell.inputs.weight.detach()[~inputs].abs().sum().eq(0) == wired_inputs
    expected = cell(x)
    with torch.no_grad():
        cell.recurrent[~recurrent] = 1e3
        if wired_inputs:
            cell.inputs.weight[~inputs] = 1e3
    torch.testing.assert_close(cell(x), expected)


def test_exponential_euler_keeps_the_state_bounded() -> None:
    cell = double_cell(ExponentialEuler(steps=2))
    with torch.no_grad():
        cell.recurrent.mul_(50)
        cell.tau_base.fill_(0.01)
    h = maps(4, channels=4)
    h[2:] *= 0.01
    bound = h.abs().amax(dim=(1, 2, 3)).clamp(min=1)
    for duration in (0.1, 1.0, 100.0):
        reached = cell(10 * maps(4), h, duration=duration).abs().amax(dim=(1, 2, 3))
        assert (reached <= bound + 1e-12).all()
    assert reached.min() > 0.9  # saturated: it would have left, if it could


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("batch_first", [False, True])
def test_channels_last_is_kept_and_changes_nothing(steps: int, batch_first: bool) -> None:
    kind = torch.channels_last
    cell = double_cell()
    plain = maps(steps, 2)
    x = plain.movedim(2, -1).contiguous().movedim(-1, 2)
    if batch_first:  # in memory, as LiquidRNN has it
        x = x.transpose(0, 1).movedim(2, -1).contiguous().movedim(-1, 2).transpose(0, 1)
    expected = cell.sequence(plain)
    for of_parameters in (torch.contiguous_format, kind):
        cell = cell.to(memory_format=of_parameters)
        for field in cell.fields(x):
            state = torch.zeros_like(field.drive)
            for value in (state, field.drive, field.rate, field.target(torch.zeros(()), state)):
                assert isinstance(value, Tensor)
                assert value.is_contiguous(memory_format=kind)
                assert not value.is_contiguous()
        torch.testing.assert_close(cell.sequence(x), expected, rtol=1e-12, atol=1e-13)
        assert cell(x[0]).is_contiguous(memory_format=kind)


@pytest.mark.parametrize("solver", [Euler(), ExponentialEuler()], ids=repr)
def test_mixed_precision_stays_close_to_float32(solver: solvers.Solver) -> None:
    torch.manual_seed(0)
    cell = ConvLiquidCell(8, 16, solver=solver)
    x = torch.randn(8, 8, 7, 6)
    exact = cell(x)
    exact.square().sum().backward()
    grads = [p.grad.clone() for p in cell.parameters() if p.grad is not None]
    cell.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = cell(x, duration=torch.ones(8, 1, 1, 1))
    assert rounded.dtype == torch.bfloat16
    rounded.float().square().sum().backward()
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0.03)
    for exact_grad, parameter in zip(grads, cell.parameters(), strict=True):
        assert parameter.grad is not None
        assert (parameter.grad - exact_grad).norm() < 0.03 * exact_grad.norm()


def test_bad_sizes() -> None:
    for name in ("kernel_size", "recurrent_kernel_size"):
        with pytest.raises(ValueError, match=f"{name} must be odd, .* not 4: take 5"):
            ConvLiquidCell(3, 4, **{name: 4})
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1"):
            ConvLiquidCell(3, 4, **{name: 0})
    with pytest.raises(ValueError, match="tau_hidden must be a whole number of at least 1, not 0"):
        ConvLiquidCell(3, 4, tau_hidden=0)
    with pytest.raises(ValueError, match="tau_init must lie in"):
        ConvLiquidCell(3, 4, tau_init=9.0)
    with pytest.raises(ValueError, match="wiring has 5 units, the cell has hidden_size=4"):
        ConvLiquidCell(3, 4, wiring=Wiring.full(5))
    inputs = torch.ones(4, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="wiring takes 2 inputs, the cell has input_size=3"):
        ConvLiquidCell(3, 4, wiring=Wiring.from_mask(torch.ones(4, 4).bool(), inputs))
    with pytest.raises(ValueError, match="solver must be a solver"):
        ConvLiquidCell(3, 4, solver="euler")  # type: ignore[arg-type]


def test_bad_inputs() -> None:
    cell = ConvLiquidCell(3, 4)
    x = torch.zeros(2, 3, 6, 5)
    for shape in ((2, 4, 6, 5), (6, 5), (2, 3)):
        expected = re.escape(f"x must have shape (*batch, 3, H, W), not {shape}")
        with pytest.raises(ValueError, match=expected):
            cell(torch.zeros(shape))
    expected = re.escape("h0 must have shape (2, 4, 6, 5), not (2, 4, 5, 6)")
    with pytest.raises(ValueError, match=expected):
        cell(x, torch.zeros(2, 4, 5, 6))
    with pytest.raises(ValueError, match=re.escape("shape (2, 1, 1, 1), not (2, 1)")):
        cell(x, duration=torch.ones(2, 1))
    with pytest.raises(ValueError, match="duration must be finite and at least 0"):
        cell(x, duration=torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
    with pytest.raises(ValueError, match="x must be finite, but is nan in sample 1"):
        cell(torch.tensor([0.0, float("nan")]).view(2, 1, 1, 1).expand(2, 3, 6, 5))


def test_bad_fields() -> None:
    drive = torch.zeros(2, 4, 6, 5)
    with pytest.raises(ValueError, match="drive and rate must have the same shape"):
        ConvLiquidField(torch.zeros(4, 4, 3, 3), drive, torch.ones(2, 4, 1, 1))
    for shape in ((4, 4), (4, 4, 2, 2), (4, 4, 3, 1)):
        with pytest.raises(ValueError, match=r"recurrent must have shape .* k odd"):
            ConvLiquidField(torch.zeros(shape), drive, drive + 1)


def test_an_empty_batch_and_no_time() -> None:
    cell = double_cell()
    assert cell(maps(0)).shape == (0, 4, 6, 5)
    assert cell.sequence(maps(3, 0)).shape == (3, 0, 4, 6, 5)
    h = maps(2, channels=4)
    assert torch.equal(cell(maps(2), h, duration=0.0), h)
