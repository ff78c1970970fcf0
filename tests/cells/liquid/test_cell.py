"""The liquid cell: against an independent NumPy implementation, and its promises to users."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import solvers
from liquid_ode import ConvLiquidCell, LiquidCell, Wiring
from solvers import Euler, ExponentialEuler, SemilinearField, TorchDiffEq, Uniform

Kind = type[LiquidCell] | type[ConvLiquidCell]


def numpy_cell(cell: LiquidCell, x: np.ndarray, h: np.ndarray, dts: list[float]) -> np.ndarray:
    """tau(x) dh/dt = -h + tanh(W_rec h + W_in x + b) by explicit Euler, sample by sample."""
    p = {name: value.detach().numpy() for name, value in cell.named_parameters()}

    def sigmoid(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-v))

    rows = []
    for xi, hi in zip(x, h, strict=True):
        inner = p["tau_mlp.0.weight"] @ xi + p["tau_mlp.0.bias"]
        gate = sigmoid(p["tau_mlp.2.weight"] @ (inner * sigmoid(inner)) + p["tau_mlp.2.bias"])
        tau = np.minimum(np.maximum(p["tau_base"] * (0.5 + gate), 0.1), 5.0)
        state = hi.copy()
        for dt in dts:
            drive = p["inputs.weight"] @ xi + p["inputs.bias"]
            state = state + dt / tau * (-state + np.tanh(p["recurrent"] @ state + drive))
        rows.append(state)
    return np.stack(rows)


def double_cell(solver: solvers.Solver = Euler(), **options: object) -> LiquidCell:
    torch.manual_seed(0)
    return LiquidCell(6, 8, solver=solver, **options).double()  # type: ignore[arg-type]


def test_agrees_with_numpy() -> None:
    cell = double_cell(Euler(steps=6, step_size=Uniform()))
    with torch.no_grad():
        cell.tau_base.uniform_(0.05, 8.0)  # so that the clamp acts at both ends
    x, h = torch.randn(5, 6, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    expected = numpy_cell(cell, x.numpy(), h.numpy(), [1.5 / 6] * 6)
    actual = cell(x, h, duration=1.5).detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-13)


def test_time_constant_stays_in_its_range() -> None:
    cell = double_cell()
    with torch.no_grad():
        cell.tau_base.copy_(torch.tensor([-3.0, 0.0, 0.01, 0.1, 1.0, 5.0, 9.0, 1e9]))
    tau = cell.time_constant(100 * torch.randn(3, 4, 6, dtype=torch.float64))
    assert tau.shape == (3, 4, 8)
    assert tau.min() == 0.1
    assert tau.max() == 5.0


def test_time_constant_depends_on_the_input_and_starts_around_tau_init() -> None:
    cell = double_cell(tau_init=2.0)
    tau = cell.time_constant(torch.randn(50, 6, dtype=torch.float64))
    assert tau.std(dim=0).min() > 0.01
    assert 1.0 <= tau.min() <= tau.max() <= 3.0
    assert float(tau.detach().mean()) == pytest.approx(2.0, rel=0.15)


def test_recurrent_weights_start_orthogonal_with_gain() -> None:
    weight = double_cell().recurrent.detach()
    gram = 0.64 * torch.eye(8, dtype=torch.float64)
    torch.testing.assert_close(weight @ weight.t(), gram, rtol=1e-6, atol=1e-6)


def test_invariant_parts_are_computed_once_a_solve() -> None:
    cell = double_cell(Euler(steps=7))
    calls = {"inputs": 0, "tau": 0}
    cell.tau_mlp.register_forward_hook(lambda *_: calls.update(tau=calls["tau"] + 1))
    targets = 0
    field = cell.field(torch.randn(3, 6, dtype=torch.float64))

    def counted(t: Tensor, y: Tensor) -> Tensor:
        nonlocal targets
        targets += 1
        return field.target(t, y)

    cell.solver.solve(
        SemilinearField.of_rate(counted, field.rate), torch.zeros(3, 8, dtype=torch.float64)
    )
    assert (calls["tau"], targets) == (1, 7)


@pytest.mark.parametrize("name", ["euler", "uniform_euler", "heun", "exponential_euler", "rk4"])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_row_does_not_depend_on_its_batch(name: str, batch: int) -> None:
    cell = double_cell(solvers.get(name))
    x = torch.randn(8, 6, dtype=torch.float64)
    h = torch.randn(8, 8, dtype=torch.float64)
    whole = cell(x, h)
    torch.testing.assert_close(cell(x[:batch], h[:batch]), whole[:batch], rtol=1e-12, atol=1e-13)
    shaped = cell(x.view(2, 4, 6), h.view(2, 4, 8))
    torch.testing.assert_close(shaped.view(8, 8), whole, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(cell(x[0], h[0]), whole[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["euler", "heun", "exponential_euler", "rk4", "dopri5"])
def test_durations_per_sample(name: str) -> None:
    cell = double_cell(solvers.get(name))
    x = torch.randn(4, 6, dtype=torch.float64)
    durations = torch.tensor([[0.0], [0.3], [1.0], [2.5]], dtype=torch.float64)
    together = cell(x, duration=durations)
    alone = [cell(row, duration=float(time)) for row, time in zip(x, durations, strict=True)]
    # dopri5 controls its error over the batch, so there it holds to the tolerance only
    tolerance = 1e-4 if name == "dopri5" else 1e-12
    torch.testing.assert_close(together, torch.stack(alone), rtol=tolerance, atol=tolerance)


def test_splitting_the_time_changes_nothing_but_the_error_of_the_solver() -> None:
    cell = double_cell(TorchDiffEq("dopri5", rtol=1e-9, atol=1e-10))
    x = torch.randn(4, 6, dtype=torch.float64)
    first = torch.rand(4, 1, dtype=torch.float64)
    split = cell(x, cell(x, duration=first), duration=1.7 - first)
    torch.testing.assert_close(split, cell(x, duration=1.7), rtol=1e-7, atol=1e-7)


def test_gradients_reach_every_parameter_and_the_inputs() -> None:
    cell = double_cell(Euler(steps=3, step_size=Uniform()))
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    h = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    time = torch.rand(4, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, h, time: cell(x, h, duration=time), (x, h, time))
    cell(x, h).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in cell.parameters())


@pytest.mark.parametrize("solver", [Euler(), ExponentialEuler()], ids=repr)
def test_mixed_precision_stays_close_to_float32(solver: solvers.Solver) -> None:
    torch.manual_seed(0)
    cell = LiquidCell(32, 64, solver=solver)
    x = torch.randn(256, 32)
    exact = cell(x)
    exact.square().sum().backward()
    grads = [p.grad.clone() for p in cell.parameters() if p.grad is not None]
    cell.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = cell(x)
    assert rounded.dtype == torch.bfloat16
    rounded.float().square().sum().backward()
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0.03)
    for exact_grad, parameter in zip(grads, cell.parameters(), strict=True):
        assert parameter.grad is not None
        assert (parameter.grad - exact_grad).norm() < 0.03 * exact_grad.norm()


@pytest.mark.parametrize(
    "wiring",
    [
        Wiring.full(8),
        Wiring.random(8, sparsity=0.7, seed=1),
        Wiring.ncp(
            6,
            inter=4,
            command=3,
            motor=1,
            sensory_fanout=2,
            inter_fanout=2,
            recurrent_command=4,
            motor_fanin=2,
        ),
    ],
    ids=repr,
)
def test_weights_outside_the_wiring_are_never_used_and_never_drift(wiring: Wiring) -> None:
    cell = double_cell(wiring=wiring)
    x = torch.randn(16, 6, dtype=torch.float64)
    optimizer = torch.optim.AdamW(cell.parameters(), lr=0.05, weight_decay=0.1)
    before = cell.recurrent.detach().clone()
    for _ in range(5):
        optimizer.zero_grad()
        cell(x).square().sum().backward()
        optimizer.step()
    absent = ~wiring.recurrent
    assert cell.recurrent.detach()[absent].abs().sum() == 0
    assert (cell.recurrent.detach() != before)[wiring.recurrent].all()
    expected = cell(x)
    with torch.no_grad():
        cell.recurrent[absent] = 1e3
        if wiring.inputs is not None:
            cell.inputs.weight[~wiring.inputs] = 1e3
    torch.testing.assert_close(cell(x), expected)


def test_bad_sizes_and_solvers() -> None:
    for sizes in ((0, 4), (4, 0), (2.5, 4)):
        with pytest.raises(ValueError, match="_size must be a whole number of at least 1"):
            LiquidCell(*sizes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="solver must be a solver"):
        LiquidCell(4, 4, solver="euler")  # type: ignore[arg-type]
    for tau in (0.05, 6.0, math.nan):
        with pytest.raises(ValueError, match="tau_init must lie in"):
            LiquidCell(4, 4, tau_init=tau)
    for width in (0, -1, 2.5):
        with pytest.raises(ValueError, match="tau_hidden must be a whole number of at least 1"):
            LiquidCell(4, 4, tau_hidden=width)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="wiring has 5 units, the cell has hidden_size=4"):
        LiquidCell(4, 4, wiring=Wiring.full(5))


def test_bad_inputs() -> None:
    cell = LiquidCell(6, 8)
    with pytest.raises(ValueError, match=r"x must have shape \(\*batch, 6\), not \(3, 5\)"):
        cell(torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"h0 must have shape \(3, 8\), not \(1, 8\)"):
        cell(torch.zeros(3, 6), torch.zeros(1, 8))
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="duration"):
            cell(torch.zeros(3, 6), duration=bad)
        with pytest.raises(ValueError, match="duration"):
            cell(torch.zeros(3, 6), duration=torch.tensor([[1.0], [bad], [1.0]]))
    with pytest.raises(ValueError, match=r"shape \(3, 1\), not \(3,\)"):
        cell(torch.zeros(3, 6), duration=torch.ones(3))
    with pytest.raises(ValueError, match="x must be finite, but is nan in sample 1"):
        cell(torch.tensor([[0.0], [math.nan], [0.0]]).expand(3, 6))


def test_a_wired_cell_is_made_on_the_device_asked_for() -> None:
    wiring = Wiring.random(4, sparsity=0.5, input_size=3)
    with torch.device("meta"):
        cell = LiquidCell(3, 4, wiring=wiring)
    assert cell.masks()["recurrent"].device.type == "meta"
    assert cell.inputs.wired("weight").device.type == "meta"
    assert cell.fields(torch.zeros(2, 1, 3, device="meta"))[1].drive.shape == (1, 4)


def test_no_time_gives_a_state_of_its_own() -> None:
    cell, h0 = double_cell(), torch.ones(5, 8, dtype=torch.float64)
    for duration in (0.0, torch.zeros(5, 1)):
        h1 = cell(torch.zeros(5, 6, dtype=torch.float64), h0, duration=duration)
        torch.testing.assert_close(h1, h0, rtol=0, atol=0)
        h1.detach().zero_()
        assert bool((h0 == 1).all())


def test_arguments_that_are_no_tensors() -> None:
    cell, x = LiquidCell(6, 8), torch.zeros(3, 6)
    with pytest.raises(ValueError, match="h0 must be a tensor, not tuple"):
        cell(x, (torch.zeros(3, 8), torch.zeros(3, 8)))
    with pytest.raises(ValueError, match="duration must be a number or a tensor, not"):
        cell(x, duration=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="durations must be a tensor, not list"):
        cell.sequence(x[None], durations=[[1.0] * 3])
    with pytest.raises(
        ValueError, match=r"floating point, not torch.int64: call x.float\(\) first"
    ):
        cell(x.long())
    with pytest.raises(ValueError, match=r"2 are not, the first is -1 at \(1, 0\)"):
        cell(x, duration=torch.tensor([[1.0], [-1.0], [torch.nan]]))


SPARSE = Wiring.random(4, sparsity=0.5, seed=1, input_size=3)
KINDS = [LiquidCell, ConvLiquidCell]


@pytest.mark.parametrize("kind", KINDS)
def test_reset_parameters_of_empty_memory_gives_a_new_cell(kind: Kind) -> None:
    torch.manual_seed(3)
    expected = kind(3, 4, wiring=SPARSE, tau_init=0.5)
    drawn = torch.get_rng_state()
    with torch.device("meta"):
        cell = kind(3, 4, wiring=SPARSE, tau_init=0.5)
    cell.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*cell.parameters(), *cell.buffers()):
            tensor.fill_(7)  # what the memory held
    torch.manual_seed(3)
    cell.reset_parameters()
    assert torch.equal(torch.get_rng_state(), drawn)
    for of in (nn.Module.named_parameters, nn.Module.named_buffers):
        own, other = dict(of(cell)), dict(of(expected))
        assert list(own) == list(other)
        assert all(torch.equal(own[name], other[name]) for name in own)
    assert (cell.tau_base == 0.5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_another_wiring_do_not_load(kind: Kind) -> None:
    saved = kind(3, 4, wiring=SPARSE).state_dict()
    for dense in (kind(3, 4), kind(3, 4, wiring=Wiring.full(4))):
        dense.load_state_dict(saved)  # what is not connected is zero
    recurrent, inputs = SPARSE.recurrent, SPARSE.inputs
    assert inputs is not None
    others = {
        "recurrent": Wiring.from_mask(recurrent.flip(0), inputs),
        r"weight of Wired\w+": Wiring.from_mask(recurrent, inputs.flip(0)),
    }
    for name, wiring in others.items():
        words = rf"saved by a cell of another wiring: \d+ entries of {name}.* are not zero"
        for cell in (kind(3, 4, wiring=wiring), copy.deepcopy(kind(3, 4, wiring=wiring))):
            with pytest.raises(ValueError, match=words):
                nn.ModuleDict({"cell": cell}).load_state_dict(
                    {f"cell.{key}": value for key, value in saved.items()}
                )


@pytest.mark.parametrize("kind", KINDS)
def test_a_wired_cell_is_loaded_into_empty_memory(kind: Kind) -> None:
    cell = kind(3, 4, wiring=SPARSE)
    x = torch.randn(2, 3, *(5, 5)[: 2 * (kind is ConvLiquidCell)])
    with torch.device("meta"):
        loaded = kind(3, 4, wiring=SPARSE)
    loaded.to_empty(device="cpu")
    for mask in loaded.buffers():
        mask.fill_(False)
    loaded.load_state_dict(cell.state_dict())
    assert torch.equal(loaded(x), cell(x))
    copied = pickle.loads(pickle.dumps(loaded))
    assert torch.equal(copied(x), cell(x))
