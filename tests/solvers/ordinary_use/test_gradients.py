"""Solves as people write them who come from other libraries: gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import solvers
from solvers import (
    Backpropagation,
    BacksolveAdjoint,
    Bosh3,
    Checkpointing,
    DormandPrince,
    Heun,
)

F64 = torch.float64


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
