"""Every solver converges at its order, and to the right solution."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import solve_ivp

import solvers
from tests.fields import Forced, TimeDependent, liquid_field

# order of convergence as the textbooks give it; torchdiffeq's rk4 is the 3/8 rule
ORDERS = {
    "uniform_euler": 1,
    "euler": 1,
    "midpoint": 2,
    "heun": 2,
    "rk4": 4,
    "torchdiffeq:euler": 1,
    "torchdiffeq:heun3": 3,
    "exponential_euler": 1,
    "semi_implicit_euler": 1,
}


def order_of(name: str, steps: tuple[int, int]) -> float:
    solver = solvers.get(name)
    semilinear = name in {"exponential_euler", "semi_implicit_euler"}
    field = Forced() if semilinear else TimeDependent()
    y0 = torch.linspace(0.5, 2, 6, dtype=torch.float64).view(3, 2)
    errors = [
        (solver.with_steps(n).solve(field, y0, (0.0, 1.5)).y - field.exact(y0, 1.5)).abs().max()
        for n in steps
    ]
    return math.log(errors[0] / errors[1]) / math.log(steps[1] / steps[0])


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_order(name: str, order: int) -> None:
    assert order_of(name, (64, 128)) == pytest.approx(order, abs=0.08)


@pytest.mark.parametrize("method", ["dopri5", "torchdiffeq:bosh3", "torchdiffeq:dopri8"])
def test_tolerance_is_kept(method: str) -> None:
    field, y0 = TimeDependent(), torch.linspace(0.5, 2, 6, dtype=torch.float64).view(3, 2)
    errors = []
    for rtol in (1e-4, 1e-8):
        solution = solvers.get(method, rtol=rtol, atol=rtol).solve(field, y0, (0.0, 1.5))
        errors.append(float((solution.y - field.exact(y0, 1.5)).abs().max()))
        assert errors[-1] < 30 * rtol
    assert errors[1] < 1e-2 * errors[0]


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
    assert error < (1e-3 if ORDERS.get(name, 5) == 1 else 1e-5)
