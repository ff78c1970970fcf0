"""Solves as people write them who come from other libraries: within transforms."""

from __future__ import annotations

import torch
from torch import Tensor

import solvers
from solvers import (
    Backpropagation,
    Checkpointing,
    Heun,
    SemilinearField,
)

F64 = torch.float64


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
