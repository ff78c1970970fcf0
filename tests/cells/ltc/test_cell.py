"""The LTC cell: against an independent NumPy implementation, and its promises to users."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import solvers
from liquid_ode import LTCCell, Wiring
from liquid_ode.cells.ltc import cell as ltc
from liquid_ode.cells.ltc import conductance
from solvers import DormandPrince, ExponentialEuler, Heun, SemiImplicitEuler, SolverError
from solvers.gradients import cache_chunks as chunks
from tests.solvers.fields import is_taped

B, T, INPUTS, H = 5, 3, 4, 6


def double_cell(**options: Any) -> LTCCell:
    torch.manual_seed(0)
    return LTCCell(INPUTS, H, **options).double()


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture
def as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small layers take the way of large ones."""
    monkeypatch.setattr(ltc, "_SMALL", 0)


@pytest.fixture(params=["small", "large"])
def both_ways(request: pytest.FixtureRequest) -> None:
    if request.param == "large":
        request.getfixturevalue("as_large")


class NumpyLTC:
    """cm dv/dt = gleak (vleak - v) + sum w s (erev - v), one sample at a time."""

    def __init__(self, cell: LTCCell) -> None:
        self.p = {name: value.detach().numpy() for name, value in cell.named_parameters()}
        self.cm, self.gleak = (np.logaddexp(0, self.p[name]) + 1e-8 for name in ("cm", "gleak"))

    def synapses(self, v: np.ndarray, prefix: str) -> tuple[np.ndarray, np.ndarray]:
        p = self.p
        opening = 1 / (1 + np.exp(-p[prefix + "sigma"] * (v[None, :] - p[prefix + "mu"])))
        current = np.logaddexp(0, p[prefix + "w"]) * opening
        return current.sum(1), (current * p[prefix + "erev"]).sum(1)

    def leak(self, x: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own = self.synapses(v, "")
        sensory = self.synapses(x * self.p["input_w"] + self.p["input_b"], "sensory_")
        gain = self.gleak + own[0] + sensory[0]
        return gain, self.gleak * self.p["vleak"] + own[1] + sensory[1]

    def slope(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        gain, drive = self.leak(x, v)
        return (drive - gain * v) / self.cm

    def fused(self, x: np.ndarray, v: np.ndarray, duration: float, steps: int) -> np.ndarray:
        """Algorithm 1 of the paper."""
        for _ in range(steps):
            gain, drive = self.leak(x, v)
            ratio = self.cm / (duration / steps)
            v = (ratio * v + drive) / (ratio + gain)
        return v


def test_the_field_is_the_equation() -> None:
    cell, x, v = double_cell(), normal(B, INPUTS), normal(B, H)
    reference = NumpyLTC(cell)
    with torch.no_grad():
        actual = cell.field(x)(torch.zeros(()), v).numpy()
        tau = cell.time_constant(x, v).numpy()
    for row in range(B):
        np.testing.assert_allclose(
            actual[row], reference.slope(x[row].numpy(), v[row].numpy()), rtol=1e-6
        )
        gain = reference.leak(x[row].numpy(), v[row].numpy())[0]
        np.testing.assert_allclose(tau[row], reference.cm / gain, rtol=1e-6)


@pytest.mark.usefixtures("both_ways")
def test_semi_implicit_euler_is_the_fused_update() -> None:
    cell, x, v = double_cell(), normal(B, INPUTS), normal(B, H)
    durations = torch.tensor([[0.0], [0.2], [1.0], [2.5], [7.0]], dtype=torch.float64)
    with torch.no_grad():
        cell.input_w.uniform_(0.5, 2.0)
        cell.input_b.normal_()
        actual = cell(x, v, duration=durations).numpy()
        same = cell(x, v, duration=1.0).numpy()
    reference = NumpyLTC(cell)
    for row in range(B):
        start = x[row].numpy(), v[row].numpy()
        duration = float(durations[row])
        expected = reference.fused(*start, duration, 6) if duration else v[row].numpy()
        np.testing.assert_allclose(actual[row], expected, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(same[row], reference.fused(*start, 1.0, 6), rtol=1e-7)


@pytest.mark.parametrize("name", ["heun", "dopri5", "tsit5", "exponential_euler", "rk4"])
def test_every_other_solver_drives_the_same_equation(name: str) -> None:
    torch.manual_seed(1)
    x, v = normal(B, INPUTS), normal(B, H)
    options = {} if "dopri5" in name or "tsit5" in name else {"steps": 400}
    cell = double_cell(solver=solvers.get(name, **options))
    exact = double_cell(solver=DormandPrince(step_size=solvers.PID(rtol=1e-9, atol=1e-9)))(x, v)
    exact = exact.detach()
    torch.testing.assert_close(cell(x, v), exact, rtol=0, atol=1e-2 if "euler" in name else 2e-4)
    fused = double_cell(solver=SemiImplicitEuler(steps=800))
    torch.testing.assert_close(fused(x, v), exact, rtol=0, atol=0.01)


def test_solvers_for_fixed_time_constants_say_that_they_do_not_fit() -> None:
    with pytest.raises(ValueError, match="those of LTCField do: take semi_implicit_euler"):
        double_cell(solver=solvers.ETDRK2())(normal(B, INPUTS))


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(
    ("solver", "longest"),
    [(SemiImplicitEuler(steps=3), 0.4), (ExponentialEuler(2), 0.4), (Heun(4), 0.04)],
)
def test_gradients(solver: solvers.Solver, longest: float) -> None:
    cell = double_cell(solver=solver)
    x, v = normal(T, 2, INPUTS), normal(2, H)
    durations = longest * (0.25 + 0.75 * torch.rand(T, 2).double())
    inputs = [tensor.requires_grad_() for tensor in (x, v, durations)]

    def run(x: Tensor, v: Tensor, durations: Tensor, *parameters: Tensor) -> Tensor:
        return cell.sequence(x, v, durations)

    assert is_taped(run(*inputs)) == (not isinstance(solver, Heun))
    assert torch.autograd.gradcheck(run, (*inputs, *cell.parameters()))


@pytest.mark.usefixtures("both_ways")
def test_second_derivatives() -> None:
    cell = double_cell(solver=SemiImplicitEuler(steps=2))
    x, v = normal(2, INPUTS).requires_grad_(), normal(2, H).requires_grad_()
    assert torch.autograd.gradgradcheck(cell, (x, v))
    cell.solver = Heun(steps=3)
    assert torch.autograd.gradgradcheck(lambda x, v: cell(x, v, duration=0.1), (x, v))


@pytest.mark.usefixtures("as_large")
def test_openings_in_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    cell, found = double_cell(), []
    for elements in (2**18, 2 * H * H):
        monkeypatch.setattr(conductance, "_ELEMENTS", elements)
        torch.manual_seed(1)
        x, v = normal(T, B, INPUTS).requires_grad_(), normal(B, H).requires_grad_()
        states = cell.sequence(x, v)
        tensors = [x, v, *cell.parameters()]
        found.append([states, *torch.autograd.grad(states.sin().sum(), tensors)])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)


def test_a_small_layer_is_as_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = double_cell(wiring=Wiring.random(H, sparsity=0.4))
    x, v = normal(T, 2, INPUTS).requires_grad_(), normal(2, H).requires_grad_()
    durations, found = torch.rand(T, 2).double().requires_grad_(), []
    tensors = [x, v, durations, *cell.parameters()]
    # Two inputs at a time; all; the way of a large one.
    for small, together in ((2**14, 2 * 6 * 2 * H * H), (2**14, 2**18), (0, 0)):
        monkeypatch.setattr(ltc, "_SMALL", small)
        monkeypatch.setattr(ltc, "_TOGETHER", together)
        states = cell.sequence(x, v, durations)
        found.append([states, *torch.autograd.grad(states.sin().sum(), tensors)])
    for parts, whole, large in zip(*found, strict=True):
        torch.testing.assert_close(parts, large, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(whole, large, rtol=1e-10, atol=1e-12)


def test_a_field_of_a_subclass_is_asked_in_a_small_layer_too() -> None:
    class StillField(ltc.LTCField):
        def leak(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return y, torch.ones_like(y)

    class Still(LTCCell):
        def fields(self, x: Tensor, durations: Tensor | None = None) -> list[ltc.LTCField]:
            made = super().fields(x, durations)
            return [StillField.of_rate(each.function, each.rate) for each in made]

    v = torch.randn(B, H)
    with torch.no_grad():
        torch.testing.assert_close(Still(INPUTS, H)(torch.randn(B, INPUTS), v), v)


def test_a_graph_of_one_evaluation_is_not_disturbed_by_the_next() -> None:
    cell = double_cell(solver=Heun(steps=30))
    x = normal(2, B, INPUTS)
    first, second = cell(x[0]), cell(x[1])
    grads = torch.autograd.grad((first.sum(), second.sum()), tuple(cell.parameters()))
    alone = [torch.autograd.grad(cell(row).sum(), tuple(cell.parameters())) for row in x]
    for both, *each in zip(grads, *alone, strict=True):
        torch.testing.assert_close(both, each[0] + each[1])


@pytest.mark.parametrize("value", [-200.0, 0.0, 50.0])
def test_conductances_stay_positive_whatever_the_parameters(value: float) -> None:
    cell = LTCCell(INPUTS, H)
    with torch.no_grad():
        for parameter in (cell.gleak, cell.cm, cell.w, cell.sensory_w):
            parameter.fill_(value)
    x, h = torch.randn(B, INPUTS), torch.randn(B, H)
    assert (cell.time_constant(x, h) > 0).all()
    assert torch.isfinite(cell(x, h)).all()


@pytest.mark.parametrize("wiring", [Wiring.random(H, sparsity=0.6), Wiring.full(H)], ids=repr)
def test_synapses_outside_the_wiring_are_never_used_and_never_drift(wiring: Wiring) -> None:
    cell, x = double_cell(wiring=wiring), normal(16, INPUTS)
    optimizer = torch.optim.AdamW(cell.parameters(), lr=0.05, weight_decay=0.1)
    absent = ~wiring.recurrent
    for _ in range(4):
        optimizer.zero_grad()
        cell(x).square().sum().backward()
        optimizer.step()
    synapses = [cell.get_parameter(name) for name in ("w", "sigma", "mu", "erev")]
    expected = cell(x)
    for parameter in synapses:
        assert parameter.detach()[absent].abs().sum() == 0
    with torch.no_grad():
        for parameter in synapses:
            parameter[absent] = 3.0
    torch.testing.assert_close(cell(x), expected, rtol=0, atol=0)


@pytest.mark.usefixtures("both_ways")
def test_autocast_leaves_the_conductances_in_float32() -> None:
    torch.manual_seed(0)
    cell, x = LTCCell(INPUTS, H), torch.randn(B, INPUTS)
    expected = cell(x)
    with torch.autocast("cpu", torch.bfloat16):
        actual = cell(x)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_bad_input() -> None:
    cell = LTCCell(INPUTS, H)
    with pytest.raises(ValueError, match=r"h0 must have shape \(5, 6\)"):
        cell.time_constant(torch.zeros(B, INPUTS), torch.zeros(B, INPUTS))
    with pytest.raises(ValueError, match="wiring has 5 units"):
        LTCCell(INPUTS, H, wiring=Wiring.full(5))
    with pytest.raises(ValueError, match="solver must be a solver"):
        LTCCell(INPUTS, H, solver="semi_implicit_euler")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x must be finite, but is nan in sample 0"):
        cell(torch.full((B, INPUTS), torch.nan).masked_fill(torch.arange(B)[:, None] > 0, 0.0))


def test_a_gain_never_cancels() -> None:
    # Synapses that are all but shut, and hardly any leak: a difference of large sums would be
    # zero or negative here.
    torch.manual_seed(0)
    cell = LTCCell(16, 256)
    with torch.no_grad():
        cell.gleak.fill_(-25.0)
    x, h = torch.full((B, 16), -100.0), torch.full((B, 256), -100.0)
    assert (cell.time_constant(x, h) > 0).all()
    assert torch.isfinite(cell(x, h)).all()


@pytest.mark.usefixtures("as_large")
def test_large_batches_in_chunks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    cell, found = double_cell(), []
    x, v = normal(T, 8, INPUTS).requires_grad_(), normal(8, H).requires_grad_()
    for elements in (2**16, 2 * H / torch.get_num_threads()):
        monkeypatch.setattr(chunks, "_ELEMENTS_A_THREAD", elements)
        states = cell.sequence(x, v)
        assert is_taped(states)
        tensors = [x, v, *cell.parameters()]
        found.append([states, *torch.autograd.grad(states.sin().sum(), tensors)])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("as_large")
def test_buffers_cross_the_border_of_inference_mode() -> None:
    cell, x = double_cell(), normal(B, INPUTS)
    with torch.inference_mode():
        expected = cell(x).clone()
    with torch.no_grad():
        torch.testing.assert_close(cell(x), expected, rtol=0, atol=0)


def test_long_sequences_of_half_precision_add_their_gradients_in_float32() -> None:
    torch.manual_seed(0)
    cell = LTCCell(INPUTS, H)
    x = torch.randn(300, 2, INPUTS).bfloat16()
    with torch.no_grad():  # the same weights for both
        for parameter in cell.parameters():
            parameter.copy_(parameter.bfloat16())
    cell.sequence(x.float()).sum().backward()
    exact = {name: parameter.grad for name, parameter in cell.named_parameters()}
    half = LTCCell(INPUTS, H).bfloat16()
    half.load_state_dict(cell.state_dict())
    half.sequence(x).float().sum().backward()
    for name in ("w", "sigma"):
        found, expected = half.get_parameter(name).grad, exact[name]
        assert found is not None
        assert expected is not None
        assert (found.float() - expected).norm() < 0.1 * expected.norm()


# What PyTorch itself does to decompose an operation.
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_forward_mode_derivatives() -> None:
    cell, x, tangent = double_cell(), normal(B, INPUTS), normal(B, INPUTS)
    with forward_ad.dual_level():
        dual = cell(forward_ad.make_dual(x, tangent))
        actual = forward_ad.unpack_dual(dual).tangent
    expected = torch.autograd.functional.jvp(cell, x, tangent)[1]
    torch.testing.assert_close(actual, expected)


def test_weights_of_another_wiring_do_not_load() -> None:
    one, other = (
        LTCCell(INPUTS, H, wiring=Wiring.random(H, sparsity=0.5, seed=seed)) for seed in (0, 1)
    )
    with pytest.raises(ValueError, match="saved by a cell of another wiring"):
        other.load_state_dict(one.state_dict())


@pytest.mark.parametrize("solver", ["uniform_euler", "heun", "classic_rk4"])
def test_explicit_steps_too_long_for_the_time_constants_are_an_error(solver: str) -> None:
    torch.manual_seed(0)
    cell = LTCCell(4, 32, solver=solvers.get(solver, steps=3))
    x = torch.randn(2, 4)
    words = r"left the range \[-1, 1\].*too long.*SemiImplicitEuler"
    with pytest.raises(SolverError, match=words):
        cell(x, duration=10.0)
    enough = LTCCell(4, 32, solver=solvers.get(solver, steps=400))
    enough.load_state_dict(cell.state_dict())
    exact = LTCCell(4, 32, solver=solvers.get("tsit5", rtol=1e-6))
    exact.load_state_dict(cell.state_dict())
    torch.testing.assert_close(enough(x), exact(x), rtol=0, atol=0.02)
