"""Solves as people write them who come from other libraries: states."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import solvers
from solvers import (
    DormandPrince,
    Euler,
    Heun,
    TorchDiffEq,
)


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
