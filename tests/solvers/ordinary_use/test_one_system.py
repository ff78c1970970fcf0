"""Solves as people write them who come from other libraries: one system without a batch axis."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import solvers
from solvers import (
    ETDRK4,
    Backpropagation,
    BacksolveAdjoint,
    Checkpointing,
    DormandPrince,
    Euler,
    Event,
    Heun,
    ParameterisedField,
    SemilinearField,
    TorchDiffEq,
    Tsit5,
)

F64 = torch.float64
ROTATION = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=F64)
EVERY = [solvers.get(name) for name in solvers.names() if "exp" not in name and "etd" not in name]
GENERAL = [s for s in EVERY if "SemiImplicit" not in type(s).__name__]


def rotation(t: Tensor, y: Tensor) -> Tensor:
    return ROTATION.to(y.dtype) @ y


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
