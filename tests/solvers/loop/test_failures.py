"""Samples that fail under error control: statuses, errors, the gradients of the others."""

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
    MAX_STEPS,
    NON_FINITE,
    PID,
    STEP_UNDERFLOW,
    Bosh3,
    Checkpointing,
    DormandPrince,
    Heun,
    HeunEuler,
    NativeSolver,
    ParameterisedField,
    SemilinearField,
    SolverError,
    Tsit5,
)

F64 = torch.float64


def kind_of(solver: Any) -> str:
    return type(solver).__name__


def trouble(t: Tensor, y: Tensor, kind: Tensor) -> Tensor:
    """Decay (0); NaN below 0.8 (1); a pole at t = 0.5 (2); too many turns (3)."""
    pole = 1 / (0.5 - t).abs().clamp(min=1e-300)
    turns = 1e4 * torch.cos(1e4 * t).expand_as(y)
    slope = torch.where(kind == 1, torch.where(y < 0.8, math.nan, -y), -y)
    slope = torch.where(kind == 2, pole.square().expand_as(y), slope)
    return torch.where(kind == 3, turns, slope)


KINDS = torch.tensor([[0.0], [1.0], [2.0], [3.0], [0.0]], dtype=F64)
EXPECTED = [0, NON_FINITE, STEP_UNDERFLOW, MAX_STEPS, 0]


@pytest.mark.parametrize("solver", [Bosh3(), DormandPrince(), Tsit5()], ids=kind_of)
def test_each_sample_has_its_own_status(solver: NativeSolver) -> None:
    solver = replace(solver, step_size=PID(1e-3, 1e-3, max_steps=500))
    field, y0 = ParameterisedField(trouble, KINDS), torch.ones(5, 2, dtype=F64)
    solution = solver.solve(field, y0, throw=False)
    assert solution.status.tolist() == EXPECTED
    assert torch.isfinite(solution.y).all()
    healthy = solver.solve(lambda t, y: -y, y0[:2])
    torch.testing.assert_close(solution.y[[0, 4]], healthy.y, rtol=1e-13, atol=1e-13)
    assert float(solution.y[1, 0]) == pytest.approx(0.8, abs=1e-3)
    tries = torch.as_tensor(solution.stats.accepted) + torch.as_tensor(solution.stats.rejected)
    assert int(tries[3]) == 500
    with pytest.raises(SolverError) as caught:
        solver.solve(field, y0)
    for words in (
        "1 of 5 samples (3) reached the largest number of steps: raise max_steps",
        "1 of 5 samples (1) met a NaN or an infinity",
        "1 of 5 samples (2) needed a step smaller than the time can resolve",
        "throw=False returns the statuses instead",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "solver", [Bosh3(), DormandPrince(), Tsit5(), ETDRK4(step_size=PID())], ids=kind_of
)
def test_nan_from_the_start(solver: NativeSolver) -> None:
    y0 = torch.tensor([[1.0, 1.0], [math.nan, 1.0], [1.0, math.inf]], dtype=F64)
    field = SemilinearField(lambda t, y: torch.zeros_like(y), 1.0)
    solution = solver.solve(field, y0, throw=False)
    assert solution.status.tolist() == [0, NON_FINITE, NON_FINITE]
    exact = torch.full((2,), math.exp(-1), dtype=F64)
    torch.testing.assert_close(solution.y[0], exact, rtol=1e-4, atol=0.0)


class Net(nn.Module):
    """Grows beyond all numbers where the state is above 3."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, dtype=F64)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[-0.5, 0.2], [-0.3, -0.7]]))
            self.linear.bias.fill_(0.1)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        slope = self.linear(y)
        return slope * torch.exp((y.abs().amax(1, keepdim=True) - 3).clamp(min=0).square() * 1e4)


@pytest.mark.parametrize("gradient", [solvers.Backpropagation(), Checkpointing()], ids=repr)
@pytest.mark.parametrize(
    "solver", [HeunEuler(step_size=PID(1e-4, 1e-4)), Tsit5(), Heun(steps=8), solvers.Euler(steps=8)]
)
@pytest.mark.parametrize("form", ["module", "parameterised"])
def test_a_failed_sample_does_not_spoil_the_gradient_of_shared_parameters(
    solver: NativeSolver, gradient: solvers.GradientMode, form: str
) -> None:
    net = Net()
    y0 = torch.tensor([[1.0, 0.5], [9.0, 9.0], [-0.5, 0.3]], dtype=F64)
    scale = torch.ones(3, 1, dtype=F64)

    def gradients(rows: list[int]) -> list[Tensor]:
        field: Any = net
        if form == "parameterised":
            field = ParameterisedField(lambda t, y, scale: scale * net(t, y), scale[rows])
        solution = replace(solver, gradient=gradient).solve(field, y0[rows], throw=False)
        healthy = [index for index, row in enumerate(rows) if row != 1]
        assert (solution.status == 0).nonzero().view(-1).tolist() == healthy
        loss = solution.y[healthy].square().sum()
        return list(torch.autograd.grad(loss, list(net.parameters())))

    for found, expected in zip(gradients([0, 1, 2]), gradients([0, 2]), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_a_rejected_infinite_step_does_not_spoil_the_gradient() -> None:
    """The sample recovers with smaller steps; the attempt that overflowed leaves no trace."""
    rate = torch.tensor(-2.0, dtype=F64, requires_grad=True)
    blown = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        slope = rate * y / (y > 0.1).to(y.dtype)  # infinite below 0.1, where no true path leads
        blown.append(bool(torch.isinf(slope).any()))
        return slope

    y0 = torch.tensor([[2.0], [1.9]], dtype=F64)
    solution = HeunEuler(step_size=PID(1e-4, 1e-4, first_step=0.6)).solve(
        ParameterisedField(lambda t, y, ones: field(t, y), torch.ones(2, 1)), y0, (0.0, 1.3)
    )
    assert any(blown)
    (grad,) = torch.autograd.grad(solution.y.sum(), rate)
    torch.testing.assert_close(grad, 1.3 * solution.y.sum().detach(), rtol=1e-3, atol=0.0)


class Sharing(solvers.Method):
    """A method whose estimate of the error is a tensor that it goes on using."""

    order, stages, error_order = 2, 2, 2

    def step(
        self, field: Any, t: Tensor, y: Tensor, dt: float | Tensor, first: Tensor
    ) -> solvers.StepResult:
        euler = y + dt * first
        last = field(t + dt, euler)
        error = (last - first) * (dt / 2)
        return solvers.StepResult(euler + torch.sin(error), error)


def test_the_controller_leaves_what_the_method_gave_it_alone() -> None:
    class Own(NativeSolver, method=Sharing()):
        """Of the method above."""

    y0 = torch.tensor([[1.0], [2.0]], dtype=F64, requires_grad=True)
    solution = Own(step_size=PID(1e-6, 1e-6)).solve(lambda t, y: -y, y0)
    (grad,) = torch.autograd.grad(solution.y.sum(), y0)
    expected = torch.full_like(y0, math.exp(-1))
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-4)


def test_a_step_that_overflows_is_made_again_with_the_gain_of_the_others() -> None:
    scale = torch.ones((), requires_grad=True)

    def leak(t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(y > 5, 3e38, y * scale), torch.where(y > 5, 9.0, 1.0)

    field = solvers.QuasilinearField(leak, 1.0)
    solver = solvers.Euler(step_size=solvers.Uniform(3))
    solution = solver.solve(field, torch.tensor([[1.0], [9.0], [2.0]]), throw=False)
    assert solution.status.tolist() == [0, NON_FINITE, 0]
    solution.y[[0, 2]].sum().backward()
    torch.testing.assert_close(scale.grad, torch.tensor(3.0))  # of y0 (1 + (scale - 1) / 3)^3
