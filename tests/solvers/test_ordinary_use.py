"""Solves as people write them who come from other libraries: right numbers, or an error."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import solvers
from solvers import (
    ETDRK2,
    ETDRK4,
    NON_FINITE,
    PID,
    STEP_UNDERFLOW,
    Backpropagation,
    BacksolveAdjoint,
    Bosh3,
    Checkpointing,
    DormandPrince,
    Euler,
    Event,
    Heun,
    ParameterisedField,
    SemilinearField,
    SolverError,
    TorchDiffEq,
    Tsit5,
    Uniform,
)

F64 = torch.float64
ROTATION = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=F64)
EVERY = [solvers.get(name) for name in solvers.names() if "exp" not in name and "etd" not in name]
GENERAL = [s for s in EVERY if "SemiImplicit" not in type(s).__name__]


def rotation(t: Tensor, y: Tensor) -> Tensor:
    return ROTATION.to(y.dtype) @ y


# One system without a batch axis.


@pytest.mark.parametrize("solver", GENERAL, ids=repr)
def test_a_vector_is_one_system(solver: solvers.Solver) -> None:
    solver = solver.with_steps(2000)
    y0 = torch.tensor([1.0, 0.0], dtype=F64)
    solution = solver.solve(rotation, y0, (0.0, 2 * math.pi), t_eval=[math.pi])
    tolerance = 0.02 if isinstance(solver, Euler) else 2e-4
    if isinstance(solver, solvers.Rosenbrock23):  # by tolerance, of order 2 and without the third
        tolerance = 1e-3
    torch.testing.assert_close(solution.y, y0, rtol=0, atol=tolerance)
    assert solution.ys is not None
    torch.testing.assert_close(solution.ys, -y0[None], rtol=0, atol=tolerance)
    assert solution.status.shape == ()
    assert isinstance(solution.stats.nfe, int)


def test_a_vector_of_as_many_elements_as_a_field_has_rows() -> None:
    """Neither the number of elements nor a structure that fields show makes it a batch."""
    y0 = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    mixing = torch.tensor([[-1.0, 0.5, 0.0], [0.2, -1.0, 0.3], [0.0, 0.4, -2.0]], dtype=F64)
    expected = torch.linalg.matrix_exp(mixing) @ y0
    for field in (
        lambda t, y: mixing @ y,
        ParameterisedField(lambda t, y, matrix: matrix @ y, mixing),
        SemilinearField(lambda t, y: mixing @ y + y, 1.0),
        SemilinearField(lambda t, y: torch.diag(1 / -mixing.diag()) @ mixing @ y + y,
                        -1 / mixing.diag()),
    ):  # fmt: skip
        y = DormandPrince(rtol=1e-9, atol=1e-9).solve(field, y0).y
        torch.testing.assert_close(y, expected, rtol=1e-7, atol=1e-7)
    y = ETDRK4(400).solve(SemilinearField(lambda t, y: mixing @ y + y, 1.0), y0).y
    torch.testing.assert_close(y, expected, rtol=1e-7, atol=1e-7)


def test_a_number_is_one_system() -> None:
    y0 = torch.tensor(2.0, dtype=F64, requires_grad=True)
    for solver in (DormandPrince(rtol=1e-9, atol=1e-9), Heun(400), TorchDiffEq("rk4", steps=50)):
        solution = solver.solve(lambda t, y: -y * math.cos(t), y0)
        (grad,) = torch.autograd.grad(solution.y, y0)
        assert float(solution.y.detach()) == pytest.approx(2 * math.exp(-math.sin(1)), abs=1e-5)
        assert float(grad) == pytest.approx(math.exp(-math.sin(1)), abs=1e-5)


@pytest.mark.parametrize("gradient", [Backpropagation(), Checkpointing(), BacksolveAdjoint()])
def test_gradients_of_one_system(gradient: solvers.GradientMode) -> None:
    y0 = torch.tensor([1.0, -0.5], dtype=F64, requires_grad=True)
    rate = torch.tensor([0.7, 1.3], dtype=F64, requires_grad=True)
    solver = DormandPrince(rtol=1e-9, atol=1e-9, gradient=gradient)
    y = solver.solve(ParameterisedField(lambda t, y, rate: -rate * y, rate), y0).y
    of_y0, of_rate = torch.autograd.grad(y.sum(), (y0, rate))
    torch.testing.assert_close(of_y0, torch.exp(-rate), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(of_rate, -y0 * torch.exp(-rate), rtol=1e-6, atol=1e-8)


def test_an_event_of_one_system() -> None:
    y0 = torch.tensor([0.0, 1.0], dtype=F64)
    stop = Event(lambda t, y: y[0] - 0.5)
    solution = Tsit5(rtol=1e-8, atol=1e-8).solve(rotation, y0, (0.0, 6.0), event=stop)
    assert solution.event_time is not None
    assert solution.event_time.shape == ()
    assert float(solution.event_time) == pytest.approx(math.pi / 6, abs=1e-6)
    with pytest.raises(ValueError, match="must return one value"):
        Tsit5().solve(rotation, y0, event=Event(lambda t, y: y - 0.5))


# Rows that depend on each other.

EDGES = torch.zeros(6, 6, dtype=F64)
for _place in range(5):
    EDGES[_place, _place + 1] = EDGES[_place + 1, _place] = 1.0
LAPLACIAN = torch.diag(EDGES.sum(1)) - EDGES
HOT = torch.arange(12, dtype=F64).view(6, 2).square() / 10


def diffusion(t: Tensor, y: Tensor) -> Tensor:
    return -LAPLACIAN @ y


COUPLED = {
    "a graph": diffusion,
    "a mean": lambda t, y: y.mean(0, keepdim=True) - y,
    "the next row": lambda t, y: y.roll(1, 0) - y,
    "the rows in reverse": lambda t, y: y.flip(0) - y,
    "the last row drives all": lambda t, y: y[-1:] - 2 * y,
    "the first row drives the last": lambda t, y: torch.cat([-y[:-1], y[:1] - y[-1:]]),
    "rows 2 and 5": lambda t, y: -y + torch.tensor([0.0, 0, 1, 0, 0, 0]).view(6, 1) * y[5:],
    "batch norm": lambda t, y: -(y - y.mean(0)) / (y.var(0, unbiased=False) + 1).sqrt(),
    "not differentiable": lambda t, y: (y.mean(0, keepdim=True) - y).detach(),
}


@pytest.mark.parametrize("name", COUPLED)
@pytest.mark.parametrize("solver", [Bosh3(), DormandPrince(), solvers.HeunEuler()], ids=repr)
def test_coupled_rows_are_refused_under_error_control(
    name: str, solver: solvers.NativeSolver
) -> None:
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(ValueError, match=r"PID\(shared=True\)"):
            solver.solve(COUPLED[name], HOT)


@pytest.mark.parametrize("name", COUPLED)
def test_coupled_rows_are_right_with_shared_steps(name: str) -> None:
    field = COUPLED[name]
    tight = TorchDiffEq("dopri8", rtol=1e-11, atol=1e-11).solve(field, HOT).y
    shared = DormandPrince(step_size=PID(1e-9, 1e-9, shared=True)).solve(field, HOT)
    torch.testing.assert_close(shared.y, tight, rtol=1e-7, atol=1e-7)
    assert shared.status.tolist() == [0] * 6
    inside = DormandPrince(rtol=1e-9, atol=1e-9).solve(
        lambda t, y: field(t, y.squeeze(0)).unsqueeze(0), HOT[None]
    )
    torch.testing.assert_close(inside.y[0], tight, rtol=1e-7, atol=1e-7)


def test_the_default_converges_on_coupled_rows() -> None:
    exact = torch.linalg.matrix_exp(-LAPLACIAN) @ HOT
    errors = [
        float((Euler(steps).solve(diffusion, HOT).y - exact).abs().max()) for steps in (100, 400)
    ]
    assert errors[1] < errors[0] / 3.5
    assert errors[1] < 0.02


def test_independent_rows_are_not_refused() -> None:
    """Whatever the function holds for each row, and where it is at rest, flat or not finite."""
    rate = torch.linspace(0.2, 2.0, 300, dtype=F64)[:, None]
    linear = nn.Linear(2, 2, dtype=F64)
    for field, y0 in (
        (lambda t, y: -rate * y, torch.ones(300, 2, dtype=F64)),
        (lambda t, y: torch.tanh(linear(y)) * torch.cos(t), torch.randn(300, 2, dtype=F64)),
        (lambda t, y: torch.zeros_like(y), torch.zeros(5, 2, dtype=F64)),
        (lambda t, y: torch.full_like(y, 3.0), torch.zeros(5, 2, dtype=F64)),
        (lambda t, y: torch.relu(y) - y.square(), torch.zeros(5, 2, dtype=F64)),
        (lambda t, y: y.detach().sin(), torch.ones(5, 2, dtype=F64)),
        (lambda t, y: torch.softmax(y, 1) - y, torch.randn(7, 2, dtype=torch.float32)),
        (nn.Sequential(nn.Linear(2, 30), nn.GELU(), nn.Linear(30, 2)).float(), torch.randn(64, 2)),
    ):
        call = field if not isinstance(field, nn.Module) else (lambda t, y, net=field: net(y))
        assert not DormandPrince().solve(call, y0).status.any()
        with torch.no_grad():
            assert not Bosh3().solve(call, y0).status.any()
        with torch.inference_mode():
            assert not Bosh3().solve(call, y0).status.any()


def test_finding_out_is_counted() -> None:
    seen = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        seen.append(y.shape[0])
        return -y

    y0 = torch.linspace(0.1, 3.0, 8, dtype=F64).view(4, 2)
    for solver in (Bosh3(), Tsit5(), solvers.HeunEuler(), DormandPrince(compiled=False)):
        seen.clear()
        solution = solver.solve(field, y0)
        assert int(torch.as_tensor(solution.stats.nfe).sum()) == sum(seen)
        named = solver.solve(ParameterisedField(lambda t, y: -y), y0)
        # One at the start; four after 1, 4, 16, ... tried steps and when the first row ends.
        assert len(seen) <= int(torch.as_tensor(named.stats.nfe).max()) + 1 + 4 * 6


def ramped(t: Tensor, y: Tensor) -> Tensor:
    strength = (t - 1).clamp(min=0).view(-1, *[1] * (y.ndim - 1))
    return 1 - strength * torch.sin(y.mean(0) - y)


def within_reach(t: Tensor, y: Tensor) -> Tensor:
    """Particles that fly towards each other, and feel no force until they are near."""
    x, v = y[:, :1], y[:, 1:]
    apart = x - x.T
    force = torch.where(apart.abs() < 0.5, 4 * apart, 0.0).sum(1, keepdim=True)
    return torch.cat([v, force], 1)


LATER = {
    "ramped in": (ramped, torch.linspace(0, 3, 10, dtype=F64).view(5, 2)),
    "within reach": (within_reach, torch.tensor([[-2.0, 1], [0, 0], [2, -1]], dtype=F64)),
    "ranks": (lambda t, y: -y * (1 + 10 * (y > y.mean(0))), HOT),
    "from zero": (lambda t, y: 1 - 10 * y * y.square().sum(), torch.zeros(4, 2, dtype=F64)),
    "through numpy": (
        lambda t, y: torch.from_numpy(-(LAPLACIAN.numpy() @ y.detach().numpy())) - 0.1 * y,
        HOT,
    ),
    "partly detached": (lambda t, y: y.detach().mean(0) - 2 * y, HOT),
    "the first time": (lambda t, y: -y + torch.sin(5 * t.flatten()[0]), HOT),
    "the mean time": (lambda t, y: -y + torch.sin(5 * t.mean()), HOT),
    "the latest time": (lambda t, y: -y + math.sin(5 * float(t.max())), HOT),
}


@pytest.mark.parametrize("name", LATER)
@pytest.mark.parametrize("solver", [Bosh3(), DormandPrince()], ids=repr)
def test_rows_that_depend_on_each_other_out_of_sight_are_refused(
    name: str, solver: solvers.NativeSolver
) -> None:
    """At the start the derivative shows nothing of it."""
    field, y0 = LATER[name]
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(ValueError, match=r"PID\(shared=True\)"):
            solver.solve(field, y0, (0.0, 4.0))
    if name != "ranks":  # which jumps
        shared = DormandPrince(step_size=PID(1e-8, 1e-8, shared=True))
        assert not shared.solve(field, y0, (0.0, 4.0)).status.any()


def test_a_network_whose_last_layer_is_still_zero_is_refused() -> None:
    """Its rows do not depend on each other yet; the gradient of that layer's weights does."""
    torch.manual_seed(0)
    first, last = nn.Linear(2, 8, dtype=F64), nn.Linear(8, 2, dtype=F64)
    nn.init.zeros_(last.weight)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return last(torch.tanh(first(EDGES @ y))) - 0.5 * y

    with pytest.raises(ValueError, match=r"PID\(shared=True\)"):
        DormandPrince().solve(field, HOT)
    # Nor does it show in the derivative as long as the units below are off.
    mixing = torch.full((6, 6), 0.3, dtype=F64)
    nn.init.constant_(last.bias, 3.0)
    with pytest.raises(ValueError, match=r"PID\(shared=True\)"):
        DormandPrince().solve(lambda t, y: last(torch.relu(mixing @ y)[:, [0] * 8]) - y, -HOT - 0.1)


def test_a_random_field_is_refused() -> None:
    dropout = nn.Dropout(0.5)
    with pytest.raises(ValueError, match="another result each time"):
        DormandPrince().solve(lambda t, y: -dropout(y), torch.ones(4, 8))


def test_shared_steps_refuse_what_they_cannot_do() -> None:
    solver = Tsit5(step_size=PID(shared=True))
    with pytest.raises(ValueError, match="shape"):
        solver.solve(diffusion, HOT, t_eval=torch.full((1, 6), 0.5))
    with pytest.raises(ValueError, match="must return one value"):
        solver.solve(diffusion, HOT, event=Event(lambda t, y: y[:, 0] - 1))
    stop = Event(lambda t, y: y[0, 0] - 1.0)
    solution = solver.solve(diffusion, HOT, (0.0, 5.0), event=stop)
    assert solution.event_time is not None
    assert solution.event_time.shape == (6,)
    assert float(solution.y[0, 0]) == pytest.approx(1.0, abs=1e-5)


# Functions of the time.


def test_functions_of_a_number() -> None:
    y0 = torch.ones(3, 2, dtype=F64)
    exact = y0 * math.exp(-(1 - math.cos(1)))
    fields = (
        lambda t, y: -math.sin(t) * y,
        lambda t, y: -math.sin(t.item()) * y,
        lambda t, y: -torch.sin(t) * y if t < 2.0 else y,
    )
    for field in fields:
        for solver in (
            Heun(400),
            Euler(step_size=Uniform(20_000)),
            DormandPrince(step_size=PID(1e-8, 1e-8, shared=True)),
            TorchDiffEq("dopri5", rtol=1e-8),
        ):
            torch.testing.assert_close(solver.solve(field, y0).y, exact, rtol=1e-4, atol=1e-4)
        one = DormandPrince(rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(one.solve(field, y0[0]).y, exact[0], rtol=1e-6, atol=1e-6)
        for solver in (DormandPrince(), Euler(5)):
            with pytest.raises(ValueError, match=r"took t for one number.*PID\(shared=True\)"):
                solver.solve(field, y0)


def test_an_error_of_the_field_is_its_own() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("the field's own")

    for solver in (DormandPrince(), Heun(3), TorchDiffEq()):
        with pytest.raises(RuntimeError, match="the field's own"):
            solver.solve(field, torch.ones(2, 2))


@pytest.mark.parametrize("solver", [Bosh3(), DormandPrince(), Tsit5(), TorchDiffEq(), Heun(200)])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_times_far_from_zero(solver: solvers.Solver, dtype: torch.dtype) -> None:
    start = 1.7e9  # seconds since 1970
    for y0 in (torch.ones(2, 3, dtype=dtype), torch.ones(3, dtype=dtype)):
        solution = solver.solve(lambda t, y: -y, y0, (start, start + 1), t_eval=[start + 0.5])
        torch.testing.assert_close(
            solution.y, torch.full_like(y0, math.exp(-1)), rtol=1e-4, atol=0.0
        )
        assert solution.ys is not None
        torch.testing.assert_close(
            solution.ys[0], torch.full_like(y0, math.exp(-0.5)), rtol=1e-4, atol=0.0
        )


def test_a_first_step_over_the_whole_span_is_not_believed() -> None:
    """Bosh3's estimate at dt = tau is exactly 0, and its y1 is 1/3."""
    solution = Bosh3(step_size=PID(first_step=1.0)).solve(lambda t, y: -y, torch.ones(2, 1))
    torch.testing.assert_close(solution.y, torch.full((2, 1), math.exp(-1)), rtol=1e-4, atol=0.0)


# Gradients.


@pytest.mark.parametrize("throw", [True, False])
def test_the_adjoint_says_that_it_cannot_be_differentiated_twice(throw: bool) -> None:
    y0 = torch.tensor([[1.0, 0.5]], dtype=F64, requires_grad=True)
    weight = torch.tensor(0.7, dtype=F64, requires_grad=True)

    def penalty(gradient: solvers.GradientMode) -> Tensor:
        solver = DormandPrince(rtol=1e-9, atol=1e-9, gradient=gradient)
        y = solver.solve(lambda t, y: -weight * y**2, y0, throw=throw).y
        (slope,) = torch.autograd.grad(y.sum(), y0, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), weight)[0]

    expected = penalty(Backpropagation())
    torch.testing.assert_close(penalty(Checkpointing()), expected, rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match="first derivatives only"):
        penalty(BacksolveAdjoint())


def test_the_adjoint_says_which_gradient_would_be_lost() -> None:
    late = torch.tensor(0.5, dtype=F64, requires_grad=True)
    early = torch.tensor(1.0, dtype=F64, requires_grad=True)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return -early * y if bool((t < 0.5).all()) else -late * y

    y0 = torch.ones(1, 2, dtype=F64)
    y = DormandPrince(gradient=BacksolveAdjoint()).solve(field, y0).y
    with pytest.raises(ValueError, match="that it did not use at t0"):
        y.sum().backward()


class Hamiltonian(nn.Module):
    """Differentiates an energy by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stiffness = nn.Parameter(torch.tensor(2.0, dtype=F64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            energy = 0.5 * (self.stiffness * y[:, 0] ** 2 + y[:, 1] ** 2)
            (slope,) = torch.autograd.grad(energy.sum(), y, create_graph=True)
        return torch.stack([slope[:, 1], -slope[:, 0]], 1)


def careless(t: Tensor, y: Tensor) -> Tensor:
    """A field that trusts that gradients are recorded."""
    y = y.requires_grad_() if not y.requires_grad else y
    (slope,) = torch.autograd.grad(y.square().sum() / 2, y, create_graph=True)
    return -slope


@pytest.mark.parametrize("gradient", [Backpropagation(), Checkpointing(), BacksolveAdjoint()])
def test_a_field_that_differentiates(gradient: solvers.GradientMode) -> None:
    field = Hamiltonian()
    y0 = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=F64)
    y = DormandPrince(rtol=1e-9, atol=1e-9, gradient=gradient).solve(field, y0).y
    angle = torch.tensor(math.sqrt(2.0), dtype=F64)
    torch.testing.assert_close(y[0, 0], torch.cos(angle), rtol=1e-7, atol=0.0)
    (grad,) = torch.autograd.grad(y[0, 0], field.stiffness)
    expected = -torch.sin(angle) / (2 * angle)
    torch.testing.assert_close(grad, expected, rtol=1e-5, atol=0.0)


def test_a_field_that_trusts_that_gradients_are_recorded() -> None:
    y0 = torch.ones(3, 2, dtype=F64)
    for solver in (DormandPrince(), Bosh3(), Heun(50)):
        y = solver.solve(careless, y0.clone()).y
        torch.testing.assert_close(y.detach(), y0 * math.exp(-1), rtol=1e-3, atol=1e-4)


def test_a_field_that_differentiates_one_system_under_the_adjoint() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            (slope,) = torch.autograd.grad(y.square().sum() / 2, y, create_graph=True)
        return torch.stack([slope[..., 1], -slope[..., 0]], -1)

    for y0 in (torch.tensor([1.0, 0.0], dtype=F64), torch.tensor([[1.0, 0.0]], dtype=F64)):
        y0.requires_grad_()
        solver = DormandPrince(rtol=1e-9, atol=1e-9, gradient=BacksolveAdjoint())
        (grad,) = torch.autograd.grad(solver.solve(field, y0).y[..., 0].sum(), y0)
        expected = torch.tensor([math.cos(1), math.sin(1)], dtype=F64).view(y0.shape)
        torch.testing.assert_close(grad, expected, rtol=1e-6, atol=1e-8)


# Samples that fail.


@pytest.mark.parametrize("solver", [Bosh3(), DormandPrince(), Tsit5()], ids=repr)
@pytest.mark.parametrize("grad", [True, False])
def test_a_bad_sample_beside_a_closure_over_the_batch(
    solver: solvers.NativeSolver, grad: bool
) -> None:
    rate = torch.tensor([[1.0], [2.0], [3.0]], dtype=F64)

    def field(t: Tensor, y: Tensor) -> Tensor:
        slow = rate * y  # only of the whole batch
        return torch.where(t < 0.5, -slow, -2 * slow)

    y0 = torch.tensor([[math.nan], [1.0], [1.0]], dtype=F64, requires_grad=grad)
    solution = solver.solve(field, y0, throw=False)
    assert solution.status.tolist() == [NON_FINITE, 0, 0]
    exact = torch.exp(-1.5 * rate[1:])
    torch.testing.assert_close(solution.y[1:].detach(), exact, rtol=1e-3, atol=1e-4)
    if grad:
        (slope,) = torch.autograd.grad(solution.y[1:].sum(), y0)
        torch.testing.assert_close(slope[1:], exact, rtol=1e-3, atol=1e-4)
    with pytest.raises(SolverError, match=r"1 of 3 samples \(0\) met a NaN") as caught:
        solver.solve(field, y0)
    assert caught.value.solution is not None
    assert caught.value.solution.status.tolist() == [NON_FINITE, 0, 0]


def test_a_blow_up_is_called_one() -> None:
    for y0 in (torch.ones(2, 1, dtype=F64), torch.ones(1, dtype=F64)):
        with pytest.raises(SolverError, match="grows without bound") as caught:
            DormandPrince().solve(lambda t, y: y**2, y0, (0.0, 2.0))
        assert caught.value.solution is not None
        assert set(caught.value.solution.status.view(-1).tolist()) == {STEP_UNDERFLOW}


def test_remedies_exist() -> None:
    with pytest.raises(SolverError) as caught:
        Tsit5(step_size=PID(max_steps=3)).solve(lambda t, y: 100 * torch.cos(90 * t) * y,
                                                torch.ones(2, 1))  # fmt: skip
    for name in ("SemilinearField", "ETDRK4", "ExponentialEuler"):
        assert name in str(caught.value)
        assert hasattr(solvers, name)


def test_torchdiffeq_says_that_one_sample_fails_all() -> None:
    y0 = torch.tensor([[1.0], [math.nan], [2.0]])
    for method in ("dopri5", "rk4"):
        with pytest.raises(SolverError, match="one of them fails all") as caught:
            TorchDiffEq(method).solve(lambda t, y: -y, y0)
        assert caught.value.solution is not None
        assert int(caught.value.solution.status[1]) == NON_FINITE


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "dopri8", "rk4", "explicit_adams"])
def test_torchdiffeq_is_never_evaluated_beyond_the_span(method: str) -> None:
    seen = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        seen.append(float(t))
        return torch.full_like(y, 1e-9)  # which makes the first step tried a long one

    TorchDiffEq(method).solve(field, torch.ones(2, 1, dtype=F64), (0.0, 0.3))
    assert max(seen) <= 0.3


# States.


@pytest.mark.parametrize(
    "solver", [DormandPrince(rtol=1e-3), Heun(8), Euler(8), TorchDiffEq("rk4")], ids=repr
)
def test_autocast_around_a_field_of_layers(solver: solvers.Solver) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4))
    y0 = torch.randn(5, 4)
    expected = solver.solve(lambda t, y: net(y), y0).y
    with torch.autocast("cpu", torch.bfloat16):
        y = solver.solve(lambda t, y: net(y), y0).y
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, expected, rtol=0.05, atol=0.05)
    y.sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in net.parameters() if p.grad is not None)


# Events within a step.


def crossing(level: float, direction: int, solver: solvers.NativeSolver, end: float) -> float:
    """When 0.5 + sin t first crosses a level."""
    stop = Event(lambda t, y: y[:, 0] - level, direction=direction)
    y0 = torch.full((1, 1), 0.5, dtype=F64)
    solution = solver.solve(lambda t, y: torch.cos(t).expand_as(y), y0, (0.0, end), event=stop)
    assert solution.event_time is not None
    return float(solution.event_time)


@pytest.mark.parametrize("kind", [Bosh3, DormandPrince, Tsit5])
def test_the_first_of_several_crossings_within_a_step(kind: type[solvers.NativeSolver]) -> None:
    first = math.asin(0.99)
    solver = kind(rtol=1e-6, atol=1e-6)
    assert crossing(1.49, 0, solver, 10.0) == pytest.approx(first, abs=1e-3)
    assert crossing(1.49, 1, solver, 10.0) == pytest.approx(first, abs=1e-3)
    assert crossing(1.49, -1, solver, 10.0) == pytest.approx(math.pi - first, abs=1e-3)


def test_crossings_within_one_long_step() -> None:
    """A quintic's step is exact, however long: three roots lie inside, at 0.2, 0.25 and 0.8."""
    roots = (0.2, 0.25, 0.8)

    def value(t: Tensor) -> Tensor:
        return (t - roots[0]) * (t - roots[1]) * (t - roots[2])

    def slope(t: Tensor, y: Tensor) -> Tensor:
        a, b, c = roots
        return (3 * t**2 - 2 * (a + b + c) * t + (a * b + a * c + b * c)).expand_as(y)

    y0 = value(torch.zeros(2, 1, dtype=F64))
    solver = DormandPrince(step_size=PID(1e-3, 1e-3, first_step=0.5, factor_max=100.0))
    for direction, expected in ((0, 0.2), (1, 0.2), (-1, 0.25)):
        stop = Event(lambda t, y: y[:, 0], direction=direction)
        solution = solver.solve(slope, y0, (0.0, 1.0), event=stop)
        assert solution.event_time is not None
        torch.testing.assert_close(
            solution.event_time, torch.full((2,), expected, dtype=F64), rtol=1e-6, atol=1e-6
        )


def test_derivatives_of_events_of_any_order() -> None:
    """exp(-k t) meets 1/2 at ln 2 / k."""
    k = torch.tensor(1.3, dtype=F64, requires_grad=True)
    stop = Event(lambda t, y: y[:, 0] - 0.5)
    for gradient in (Backpropagation(), Checkpointing()):
        solver = DormandPrince(rtol=1e-11, atol=1e-12, gradient=gradient)
        y0 = torch.ones(2, 1, dtype=F64)
        time = solver.solve(lambda t, y: -k * y, y0, (0.0, 3.0), event=stop).event_time
        assert time is not None
        (first,) = torch.autograd.grad(time[0], k, create_graph=True)
        (second,) = torch.autograd.grad(first, k)
        torch.testing.assert_close(
            first.detach(), -math.log(2) / k.detach() ** 2, rtol=1e-6, atol=0
        )
        torch.testing.assert_close(second, 2 * math.log(2) / k.detach() ** 3, rtol=1e-5, atol=0)
        plain = solver.solve(lambda t, y: -y, y0, (0.0, 3.0), event=stop)
        assert plain.event_time is not None
        assert not plain.event_time.requires_grad


def test_a_solve_goes_on_from_an_event() -> None:
    """A ball that bounces with 0.8 of its speed, dropped from 1: 2 v / g between the bounces."""
    gravity = 9.81

    def fall(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[:, 1], torch.full_like(y[:, 0], -gravity)], 1)

    for direction in (0, -1):
        ground = Event(lambda t, y: y[:, 0], direction=direction)
        state, start, times = torch.tensor([[1.0, 0.0]], dtype=F64), 0.0, []
        for _ in range(4):
            found = DormandPrince(rtol=1e-9, atol=1e-9).solve(
                fall, state, (start, 20.0), event=ground
            )
            assert found.event_time is not None
            start = float(found.event_time)
            times.append(start)
            state = found.y * torch.tensor([1.0, -0.8], dtype=F64)
        between = [2 * 0.8**n * math.sqrt(2 / gravity) for n in range(1, 4)]
        expected = math.sqrt(2 / gravity)
        for found_time, more in zip(times, [0.0, *between], strict=True):
            expected += more
            assert found_time == pytest.approx(expected, abs=1e-6)


# Stiff leaks.


def test_error_control_of_exponential_methods_does_not_suffer_from_stiffness() -> None:
    y0 = torch.zeros(2, 3, dtype=F64)
    counts = []
    for tau in (0.1, 0.01, 0.001, 0.0001, 0.00001):
        field = SemilinearField(lambda t, y: torch.cos(3 * t).expand_as(y), tau)
        solution = ETDRK4(rtol=1e-5, atol=1e-6).solve(field, y0, (0.0, 2.0))
        lag, angle = 3 * tau, 6.0
        exact = (math.cos(angle) + lag * math.sin(angle)) / (1 + lag**2)
        torch.testing.assert_close(solution.y, torch.full_like(y0, exact), rtol=1e-4, atol=1e-4)
        counts.append(int(torch.as_tensor(solution.stats.accepted).max()))
    assert max(counts) < 1200  # an estimate that does not fall asks for many thousands
    assert counts[-1] < 1.1 * counts[-2]
    with pytest.raises(ValueError, match="ETDRK4"):
        ETDRK2(rtol=1e-4)


def test_stiff_moving_targets_are_followed_to_the_tolerance() -> None:
    """Over steps much longer than tau the estimate is of what the last stage misses."""
    y0 = torch.zeros(2, 1, dtype=F64)
    for tau in (1e-2, 1e-4):
        field = SemilinearField(lambda t, y: torch.sin(5 * t).expand_as(y) + 0.1 * y, tau)
        tight = ETDRK4(4000).solve(field, y0, (0.0, 2.0), t_eval=[0.5, 1.0, 1.7]).ys
        for tolerance in (1e-3, 1e-4):
            found = ETDRK4(rtol=tolerance, atol=tolerance).solve(
                field, y0, (0.0, 2.0), t_eval=[0.5, 1.0, 1.7]
            )
            torch.testing.assert_close(found.ys, tight, rtol=0.0, atol=5 * tolerance)


def test_flags_are_booleans() -> None:
    with pytest.raises(ValueError, match="shared must be True or False"):
        PID(shared="no")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="compiled must be True or False"):
        DormandPrince(compiled="no")  # type: ignore[arg-type]


def test_a_method_of_ones_own_is_held_to_its_shapes() -> None:
    class Loose(solvers.Method):
        order, stages, error_order = 1, 1, 2

        def __init__(self, kind: str) -> None:
            self.kind = kind

        def step(self, field, t, y, dt, first):  # type: ignore[no-untyped-def]
            y1 = y + dt * first
            return {
                "tensor": y1,
                "scalar error": solvers.StepResult(y1, torch.tensor(1e-9, dtype=F64)),
                "no error": solvers.StepResult(y1),
                "narrow": solvers.StepResult(y1.float(), y1.float()),
            }[self.kind]

    y0 = torch.ones(2, 2, dtype=F64)
    for kind, words in {
        "tensor": "must return a solvers.StepResult, not Tensor",
        "scalar error": "as the error must return the shape",
        "no error": "as the error must return a tensor, not NoneType",
        "narrow": "must return the shape and dtype",
    }.items():
        with pytest.raises(ValueError, match=words):
            solvers.NativeSolver(method=Loose(kind), rtol=1e-3).solve(lambda t, y: -y, y0)


def test_fields_are_made_inside_transforms_and_compiled_models() -> None:
    def end(tau: Tensor) -> Tensor:
        field = SemilinearField(lambda t, y: torch.cos(y), tau)
        return solvers.ExponentialEuler(4).solve(field, torch.ones(2, 3)).y.sum()

    taus = torch.tensor([0.5, 2.0])
    expected = torch.stack([end(tau) for tau in taus])
    torch.testing.assert_close(torch.vmap(end)(taus), expected)
    gradients = torch.vmap(torch.func.grad(end))(taus)
    assert bool(torch.isfinite(gradients).all())


def test_checkpoints_inside_transforms() -> None:
    def end(y: Tensor, gradient: solvers.GradientMode) -> Tensor:
        return Heun(4, gradient=gradient).solve(lambda t, y: torch.sin(y) - y, y).y

    y0 = torch.linspace(-1, 1, 6, dtype=F64).view(3, 2)
    found = torch.func.jacrev(lambda y: end(y, Checkpointing()))(y0)
    torch.testing.assert_close(found, torch.func.jacrev(lambda y: end(y, Backpropagation()))(y0))
