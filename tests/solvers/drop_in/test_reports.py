"""What users of torchdiffeq reported or asked for, by its calls: the right values.

Numbers are those of the threads at github.com/rtqichen/torchdiffeq/issues.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from solvers import odeint, odeint_adjoint, odeint_event

ADJOINT = pytest.mark.parametrize("solve", [odeint, odeint_adjoint])


@ADJOINT
def test_gradients_to_the_times_have_their_own_signs(solve: Any) -> None:
    """87, 166, 176, 199, 218: y' = -2 y from y(t0) = 1; dy(t1)/dt1 = -dy(t1)/dt0 = -0.7358."""
    t = torch.tensor([0.0, 0.2, 0.5], dtype=torch.float64, requires_grad=True)
    y = solve(lambda t, y: -2 * y, torch.ones(1, dtype=torch.float64), t)
    (last,) = torch.autograd.grad(y[2], t, retain_graph=True)
    slope = 2 * math.exp(-1.0)
    torch.testing.assert_close(last, torch.tensor([slope, 0.0, -slope], dtype=torch.float64))
    (middle,) = torch.autograd.grad(y[1], t)
    slope = 2 * math.exp(-0.4)
    wanted = torch.tensor([slope, -slope, 0.0], dtype=torch.float64)
    torch.testing.assert_close(middle, wanted, rtol=3e-6, atol=3e-6)


@ADJOINT
def test_tuples_of_what_a_closure_holds(solve: Any) -> None:
    """147: (x, y)' = (beta_0 t, beta_1 t) to t = 10, where d/dx0 = 1 and d/dbeta = 50."""
    beta = torch.tensor([3.0, 5.0], requires_grad=True)
    x0, y0 = torch.tensor([0.1], requires_grad=True), torch.tensor([2.0], requires_grad=True)
    x, y = solve(lambda t, s: (beta[0] * t, beta[1] * t), (x0, y0), torch.tensor([0.0, 10.0]))
    torch.testing.assert_close(x[1], torch.tensor([150.1]))
    torch.testing.assert_close(y[1], torch.tensor([252.0]))
    by_x0, by_beta = torch.autograd.grad(x[1], (x0, beta))
    torch.testing.assert_close(by_x0, torch.ones(1))
    torch.testing.assert_close(by_beta, torch.tensor([50.0, 0.0]))


@ADJOINT
def test_complex_states(solve: Any) -> None:
    """133, 213, 219: a complex64 state under a complex matrix, with its gradient."""
    t = torch.linspace(0.0, 2.0, 10)
    matrix = torch.tensor([[0, 1.0], [-100.0, 0]], dtype=torch.complex64)
    y0 = torch.tensor([1.0, 9.0], dtype=torch.complex64, requires_grad=True)
    path = solve(lambda t, y: torch.mv(matrix, y), y0, t, rtol=1e-6, atol=1e-6)
    exact = (10 * t).cos() + 0.9 * (10 * t).sin()
    assert path.dtype == torch.complex64
    torch.testing.assert_close(path[:, 0].detach(), exact.to(torch.complex64), rtol=1e-3, atol=1e-3)
    (grad,) = torch.autograd.grad(path[-1, 0].real, y0)
    wanted = torch.tensor([math.cos(20), math.sin(20) / 10], dtype=torch.complex64)
    torch.testing.assert_close(grad, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("interface", [odeint, odeint_adjoint])
def test_an_event_functions_parameters_are_trained(interface: Any) -> None:
    """199, 208: their gradient was None unless they were made a part of the state."""

    class Threshold(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.level = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return y - self.level

    event = Threshold()
    optimizer = torch.optim.Adam(event.parameters(), lr=0.3)
    for _ in range(25):
        optimizer.zero_grad()
        when, _ = odeint_event(
            lambda t, y: y, torch.ones(1, dtype=torch.float64), torch.tensor([0.0]),
            event_fn=event, odeint_interface=interface, method="bosh3", atol=1e-6, rtol=1e-5,
        )  # fmt: skip
        loss = (when - 1.0).square()
        loss.backward()
        optimizer.step()
    assert event.level.item() == pytest.approx(math.e, rel=5e-2)


@ADJOINT
def test_back_from_the_end_to_the_start(solve: Any) -> None:
    """172: t = [T, 0] gives the start again."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    start = torch.randn(5, 2, dtype=torch.float64)
    t = torch.tensor([0.0, 3.0], dtype=torch.float64)
    end = solve(lambda t, y: net(y), start, t)[-1]
    torch.testing.assert_close(
        solve(lambda t, y: net(y), end, t.flip(0))[-1], start, rtol=1e-5, atol=1e-5
    )


def test_tensors_that_are_no_parameters_have_their_gradient_by_the_adjoint() -> None:
    """94, 104, 227: of a module that holds plain tensors, and of a function."""

    class Field(nn.Module):
        def __init__(self, numbers: Tensor) -> None:
            super().__init__()
            self.numbers = numbers

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return self.numbers[0] * y - self.numbers[1] * y**2

    numbers = torch.tensor([0.4, 3.0], dtype=torch.float64, requires_grad=True)
    y0, t = torch.tensor([1.4], dtype=torch.float64), torch.tensor([0.0, 2.0], dtype=torch.float64)
    field = Field(numbers)
    wanted = torch.autograd.grad(odeint(field, y0, t)[-1], numbers)
    for func in (field, lambda t, y: 1.0 * field(t, y)):
        torch.testing.assert_close(
            torch.autograd.grad(odeint_adjoint(func, y0, t)[-1], numbers), wanted,
            rtol=1e-5, atol=1e-7,
        )  # fmt: skip


def test_one_tensor_as_adjoint_params() -> None:
    """178: it was taken for the sequence of its rows, and had no gradient."""
    weight = torch.tensor([[-1.0, 0.5], [0.2, -0.7]], dtype=torch.float64, requires_grad=True)
    y0, t = torch.ones(2, dtype=torch.float64), torch.tensor([0.0, 0.72], dtype=torch.float64)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return -y + y @ weight

    (found,) = torch.autograd.grad(
        odeint_adjoint(field, y0, t, adjoint_params=weight)[-1].sum(), weight
    )
    (wanted,) = torch.autograd.grad(odeint(field, y0, t)[-1].sum(), weight)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


@ADJOINT
def test_a_field_that_is_a_derivative_itself(solve: Any) -> None:
    """151, 154, 209: a Hamiltonian's gradient, taken inside of func."""
    mass = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

    def field(t: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            y = y.requires_grad_(True)
            energy = y[1] ** 2 / (2 * mass) + y[0] ** 2 / 2
            (slope,) = torch.autograd.grad(energy, y, create_graph=True)
        return torch.stack((slope[1], -slope[0]))

    y0, t = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 2.0]).double()
    end = solve(field, y0, t)[-1, 0]
    turned = torch.cos(2.0 / mass.sqrt())
    torch.testing.assert_close(end, turned, rtol=1e-6, atol=1e-6)
    found, wanted = (torch.autograd.grad(value, mass)[0] for value in (end, turned))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@ADJOINT
def test_tolerances_of_parts_serve_the_way_back_too(solve: Any) -> None:
    """124: "tupled rtol must have the same length as the tuple y0", raised in backward."""
    rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    start = torch.ones(3, 2, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)
    settings: dict[str, Any] = {"rtol": [1e-8, 1e20], "atol": [1e-8, 1e20]}
    end, total = solve(
        lambda t, s: (-rate * s[0], s[0].sum(1, keepdim=True)), start, torch.tensor([0.0, 1.0]),
        **settings,
    )  # fmt: skip
    (found,) = torch.autograd.grad(end[-1].sum(), rate)
    assert float(found) == pytest.approx(-6 * math.exp(-0.5), rel=1e-5)
    assert total.shape == (2, 3, 1)


def test_times_in_float32_far_from_0() -> None:
    """57: times like 0, 60, 120, 180 in float32 end in "underflow in dt"; and late ones."""
    for start in (0.0, 1000.0):
        t = torch.tensor([0.0, 60.0, 120.0, 180.0]) + start
        path = odeint(lambda t, y: -0.05 * y, torch.ones(2), t, rtol=1e-5, atol=1e-7)
        wanted = torch.exp(-0.05 * (t - start)).view(-1, 1).expand(4, 2)
        torch.testing.assert_close(path, wanted, rtol=1e-3, atol=1e-5)


def test_a_pulse_is_not_stepped_over() -> None:
    """197 and others: a field that jumps, by jump_t, and by step_t."""

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.where((t > 5.0) & (t < 5.1), 10.0, 0.0) - y

    exact = 10 * (1 - math.exp(-0.1)) * math.exp(-4.9)
    t = torch.tensor([0.0, 10.0], dtype=torch.float64)
    for name in ("jump_t", "step_t"):
        options = {name: torch.tensor([5.0, 5.1], dtype=torch.float64)}
        y = odeint(field, torch.zeros(1, dtype=torch.float64), t, options=options)
        assert float(y[-1]) == pytest.approx(exact, rel=1e-6)
    back = odeint(field, y[-1], t.flip(0), options=options)
    torch.testing.assert_close(back[-1], torch.zeros(1, dtype=torch.float64), atol=1e-4, rtol=0.0)
