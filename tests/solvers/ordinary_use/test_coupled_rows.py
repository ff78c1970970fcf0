"""Solves as people write them who come from other libraries: rows that depend on each other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import solvers
from solvers import (
    PID,
    Bosh3,
    DormandPrince,
    Euler,
    Event,
    ParameterisedField,
    TorchDiffEq,
    Tsit5,
)

F64 = torch.float64


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
