"""A state without a batch axis, (d,) or (), is one system: one step for all of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import solvers
from solvers import (
    ETDRK4,
    PID,
    DormandPrince,
    Euler,
    Event,
    ExponentialEuler,
    Heun,
    ParameterisedField,
    SemilinearField,
    SolverError,
    TorchDiffEq,
    Tsit5,
    Uniform,
)
from tests.solvers.fields import Forced

F64 = torch.float64
MATRIX = torch.tensor([[-0.4, 1.0, 0.2], [-1.0, -0.1, 0.0], [0.3, 0.0, -0.8]], dtype=F64)
SOLVERS = [
    Euler(400),
    Euler(step_size=Uniform(400)),
    Heun(50),
    DormandPrince(),
    Tsit5(rtol=1e-8, atol=1e-8),
    TorchDiffEq("dopri5", rtol=1e-7, atol=1e-7),
    TorchDiffEq("rk4", steps=50),
]


def coupled(t: Tensor, y: Tensor) -> Tensor:
    return MATRIX @ y


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_vector_is_one_system(solver: solvers.Solver) -> None:
    """Its elements may depend on each other, and the field gets it as it is."""
    shapes = set()

    def field(t: Tensor, y: Tensor) -> Tensor:
        shapes.add((t.shape, y.shape))
        return coupled(t, y)

    y0 = torch.tensor([1.0, -0.5, 0.2], dtype=F64)
    solution = solver.solve(field, y0, t_eval=[0.0, 0.5, 1.0])
    torch.testing.assert_close(solution.y, torch.linalg.matrix_exp(MATRIX) @ y0, rtol=0, atol=3e-3)
    assert solution.ys is not None
    assert solution.ys.shape == (3, 3)
    half = torch.linalg.matrix_exp(MATRIX / 2) @ y0
    torch.testing.assert_close(solution.ys[1], half, rtol=0, atol=3e-3)
    assert shapes == {(torch.Size(), y0.shape)}
    assert solution.status.shape == ()
    assert int(solution.status) == solvers.SUCCESS
    counts = solution.stats.nfe, solution.stats.accepted, solution.stats.rejected
    assert all(isinstance(count, int) for count in counts)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_number_is_one_system(solver: solvers.Solver) -> None:
    y0 = torch.tensor(2.0, dtype=F64, requires_grad=True)
    solution = solver.solve(lambda t, y: -y * torch.cos(t), y0, (0.0, 0.5))
    assert solution.y.shape == solution.status.shape == ()
    exact = y0 * math.exp(-math.sin(0.5))
    torch.testing.assert_close(solution.y, exact, rtol=1e-3, atol=0)
    (found,) = torch.autograd.grad(solution.y, y0)
    torch.testing.assert_close(
        found, torch.tensor(math.exp(-math.sin(0.5)), dtype=F64), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("solver", [ExponentialEuler(300), ETDRK4(5), ETDRK4(rtol=1e-6)], ids=repr)
@pytest.mark.parametrize("tau", [0.5, torch.tensor([0.5, 0.5], dtype=F64)], ids=["number", "each"])
def test_semilinear_fields(solver: solvers.Solver, tau: Any) -> None:
    forced = Forced(0.5)
    y0 = torch.tensor([1.0, -1.0], dtype=F64)
    solution = solver.solve(SemilinearField(forced.function, tau), y0)
    torch.testing.assert_close(solution.y, forced.exact(y0, 1.0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("solver", [Heun(5), Tsit5(), Euler(5)], ids=repr)
def test_it_is_the_batch_of_one_that_holds_it(solver: solvers.Solver) -> None:
    y0 = torch.tensor([1.0, -0.5, 0.2], dtype=F64)
    one = solver.solve(coupled, y0)
    batch = solver.solve(lambda t, y: y @ MATRIX.t(), y0[None])
    torch.testing.assert_close(one.y, batch.y[0], rtol=1e-13, atol=1e-13)
    assert one.stats.accepted == int(batch.stats.accepted)


@pytest.mark.parametrize(
    "gradient",
    [solvers.Backpropagation(), solvers.Checkpointing(), solvers.BacksolveAdjoint()],
    ids=repr,
)
@pytest.mark.parametrize("form", ["module", "arguments"])
def test_gradients(gradient: solvers.GradientMode, form: str) -> None:
    """Also where the field names its tensors, whose first axis is no batch here."""
    y0 = torch.tensor([1.0, -0.5, 0.2], dtype=F64, requires_grad=True)
    linear = nn.Linear(3, 3, bias=False, dtype=F64)
    with torch.no_grad():
        linear.weight.copy_(MATRIX)

    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return self.linear(y)

    field: Any = Field()
    if form == "arguments":
        field = ParameterisedField(lambda t, y, weight: weight @ y, linear.weight)
    solver = DormandPrince(rtol=1e-9, atol=1e-9, gradient=gradient)
    y = solver.solve(field, y0).y
    exact = torch.linalg.matrix_exp(linear.weight) @ y0
    leaves = y0, linear.weight
    grads = (torch.autograd.grad(x.sin().sum(), leaves) for x in (y, exact))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_failures_name_the_system() -> None:
    def pole(t: Tensor, y: Tensor) -> Tensor:
        return y.square().sum() * torch.ones_like(y)

    y0 = torch.ones(2, dtype=F64)
    with pytest.raises(SolverError, match=r"^the system needed a step smaller") as caught:
        Tsit5().solve(pole, y0, (0.0, 2.0))
    assert caught.value.solution is not None
    assert torch.isfinite(caught.value.solution.y).all()
    nan = Heun(5).solve(lambda t, y: y * math.nan, y0, throw=False)
    assert nan.status.shape == ()
    assert int(nan.status) == solvers.NON_FINITE
    assert torch.equal(nan.y, y0)
    with pytest.raises(SolverError, match=r"^the system met a NaN"):
        Heun(5).solve(lambda t, y: y * math.nan, y0)


def test_events_of_one_system() -> None:
    def circle(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([-y[1], y[0]])

    y0 = torch.tensor([1.0, 0.0], dtype=F64)
    solver = Tsit5(rtol=1e-9, atol=1e-9)
    solution = solver.solve(circle, y0, (0.0, 6.0), event=Event(lambda t, y: y[0]))
    assert solution.event_time is not None
    assert solution.event_time.shape == ()
    assert float(solution.event_time) == pytest.approx(math.pi / 2, abs=1e-6)
    torch.testing.assert_close(solution.y, torch.tensor([0.0, 1.0], dtype=F64), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"must return one value, shape \(\); it returned \(2,\)"):
        solver.solve(circle, y0, event=Event(lambda t, y: y - 0.5))
    shared = replace(solver, step_size=PID(1e-9, 1e-9, shared=True))
    both = shared.solve(lambda t, y: -y, y0[:, None] + 1, event=Event(lambda t, y: y.sum() - 1.5))
    torch.testing.assert_close(
        both.event_time, torch.full((2,), math.log(2), dtype=F64), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_lower_precision(dtype: torch.dtype) -> None:
    y0 = torch.tensor([1.0, 0.5], dtype=dtype)
    for solver in (Heun(20), Tsit5(), TorchDiffEq("rk4", steps=20)):
        y = solver.solve(lambda t, y: -y, y0).y
        assert y.dtype == dtype
        exact = y0.double() * math.exp(-1)
        torch.testing.assert_close(
            y.double(), exact, rtol=0, atol=8 * torch.finfo(dtype).eps + 1e-3
        )


def test_empty_states() -> None:
    for shape in ((0,), (0, 3), (3, 0)):
        for solver in (Heun(5), Tsit5(), Euler(), TorchDiffEq("dopri5")):
            solution = solver.solve(lambda t, y: -y, torch.ones(shape), t_eval=[0.5, 1.0])
            assert solution.y.shape == shape
            assert solution.ys is not None
            assert solution.ys.shape == (2, *shape)
            assert solution.status.shape == shape[: len(shape) - 1]


def test_a_chain_and_a_recorder_take_one_system() -> None:
    y0 = torch.tensor([1.0, -0.5, 0.2], dtype=F64)
    rates = torch.tensor([0.5, 1.0, 2.0], dtype=F64)
    fields = [ParameterisedField(lambda t, y, r: -r * y, rates * k) for k in (1, 2)]
    ends = Tsit5(rtol=1e-8, atol=1e-8).solve_chain(fields, y0)
    expected = torch.stack([y0 * torch.exp(-rates), y0 * torch.exp(-3 * rates)])
    torch.testing.assert_close(ends, expected, rtol=1e-5, atol=1e-5)
    recorder = solvers.Recorder(Heun(), rows=2)
    recorder.solve(fields[0], y0)
    (problem,) = recorder.problems
    assert torch.equal(problem.y0, y0)  # elements of one system are no samples to draw from
