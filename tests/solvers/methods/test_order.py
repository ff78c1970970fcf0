"""Accuracy beside what the conformance suite checks: exactness, bounds, scipy on liquid fields."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import solve_ivp

import solvers
from tests.solvers.fields import liquid_field


def test_exponential_euler_is_exact_for_a_constant_target_and_large_steps() -> None:
    field = solvers.SemilinearField(lambda t, y: torch.full_like(y, 0.7), tau=0.01)
    y0 = torch.tensor([[3.0, -2.0]], dtype=torch.float64)
    y = solvers.ExponentialEuler(steps=2).solve(field, y0, (0.0, 0.05)).y
    expected = 0.7 + (y0 - 0.7) * math.exp(-5)
    torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-13)


def test_exponential_euler_stays_bounded_where_explicit_euler_does_not() -> None:
    field = liquid_field(seed=3, tau=(0.1, 0.12))
    y0 = 3 * torch.ones_like(field.drive)
    span = (0.0, 3.0)
    bounded = solvers.ExponentialEuler(steps=3).solve(field, y0, span).y
    assert bounded.abs().max() <= 3
    assert solvers.get("uniform_euler", steps=3).solve(field, y0, span).y.abs().max() > 100


@pytest.mark.parametrize("name", ["midpoint", "heun", "exponential_euler", "dopri5", "euler"])
def test_liquid_field_agrees_with_scipy(name: str) -> None:
    field = liquid_field(seed=0, batch=2, hidden=5, tau=(0.3, 2.0))
    y0 = torch.zeros_like(field.drive)
    shape = y0.shape

    def numpy_field(t: float, y: object) -> object:
        value = torch.as_tensor(y).view(shape)
        return field(torch.tensor(t, dtype=torch.float64), value).reshape(-1).numpy()

    path = solve_ivp(numpy_field, (0, 1), y0.reshape(-1).numpy(), rtol=1e-10, atol=1e-12)
    expected = torch.as_tensor(path.y[:, -1]).view(shape)
    solver = solvers.get(name).with_steps(2000)
    error = (solver.solve(field, y0).y - expected).abs().max()
    assert error < (1e-3 if "euler" in name else 1e-5)
