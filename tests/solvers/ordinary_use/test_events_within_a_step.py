"""Solves as people write them who come from other libraries: events within a step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import solvers
from solvers import (
    PID,
    Backpropagation,
    Bosh3,
    Checkpointing,
    DormandPrince,
    Event,
    Tsit5,
)

F64 = torch.float64


def crossing(level: float, direction: int, solver: solvers.NativeSolver, end: float) -> float:
    """When 0.5 + sin t first crosses a level."""
    stop = Event(lambda t, y: y[:, 0] - level, direction=direction)
    y0 = torch.full((1, 1), 0.5, dtype=F64)
    solution = solver.solve(lambda t, y: torch.cos(t).expand_as(y), y0, (0.0, end), event=stop)
    assert solution.event_time is not None
    return float(solution.event_time)


@pytest.mark.parametrize("kind", [Bosh3, DormandPrince, Tsit5])
def test_the_first_of_several_crossings_within_a_step(kind: type[solvers.NativeSolver]) -> None:
    first = math.asin(0.99)
    solver = kind(rtol=1e-6, atol=1e-6)
    assert crossing(1.49, 0, solver, 10.0) == pytest.approx(first, abs=1e-3)
    assert crossing(1.49, 1, solver, 10.0) == pytest.approx(first, abs=1e-3)
    assert crossing(1.49, -1, solver, 10.0) == pytest.approx(math.pi - first, abs=1e-3)


def test_crossings_within_one_long_step() -> None:
    """A quintic's step is exact, however long: three roots lie inside, at 0.2, 0.25 and 0.8."""
    roots = (0.2, 0.25, 0.8)

    def value(t: Tensor) -> Tensor:
        return (t - roots[0]) * (t - roots[1]) * (t - roots[2])

    def slope(t: Tensor, y: Tensor) -> Tensor:
        a, b, c = roots
        return (3 * t**2 - 2 * (a + b + c) * t + (a * b + a * c + b * c)).expand_as(y)

    y0 = value(torch.zeros(2, 1, dtype=F64))
    solver = DormandPrince(step_size=PID(1e-3, 1e-3, first_step=0.5, factor_max=100.0))
    for direction, expected in ((0, 0.2), (1, 0.2), (-1, 0.25)):
        stop = Event(lambda t, y: y[:, 0], direction=direction)
        solution = solver.solve(slope, y0, (0.0, 1.0), event=stop)
        assert solution.event_time is not None
        torch.testing.assert_close(
            solution.event_time, torch.full((2,), expected, dtype=F64), rtol=1e-6, atol=1e-6
        )


def test_derivatives_of_events_of_any_order() -> None:
    """exp(-k t) meets 1/2 at ln 2 / k."""
    k = torch.tensor(1.3, dtype=F64, requires_grad=True)
    stop = Event(lambda t, y: y[:, 0] - 0.5)
    for gradient in (Backpropagation(), Checkpointing()):
        solver = DormandPrince(rtol=1e-11, atol=1e-12, gradient=gradient)
        y0 = torch.ones(2, 1, dtype=F64)
        time = solver.solve(lambda t, y: -k * y, y0, (0.0, 3.0), event=stop).event_time
        assert time is not None
        (first,) = torch.autograd.grad(time[0], k, create_graph=True)
        (second,) = torch.autograd.grad(first, k)
        torch.testing.assert_close(
            first.detach(), -math.log(2) / k.detach() ** 2, rtol=1e-6, atol=0
        )
        torch.testing.assert_close(second, 2 * math.log(2) / k.detach() ** 3, rtol=1e-5, atol=0)
        plain = solver.solve(lambda t, y: -y, y0, (0.0, 3.0), event=stop)
        assert plain.event_time is not None
        assert not plain.event_time.requires_grad


def test_a_solve_goes_on_from_an_event() -> None:
    """A ball that bounces with 0.8 of its speed, dropped from 1: 2 v / g between the bounces."""
    gravity = 9.81

    def fall(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[:, 1], torch.full_like(y[:, 0], -gravity)], 1)

    for direction in (0, -1):
        ground = Event(lambda t, y: y[:, 0], direction=direction)
        state, start, times = torch.tensor([[1.0, 0.0]], dtype=F64), 0.0, []
        for _ in range(4):
            found = DormandPrince(rtol=1e-9, atol=1e-9).solve(
                fall, state, (start, 20.0), event=ground
            )
            assert found.event_time is not None
            start = float(found.event_time)
            times.append(start)
            state = found.y * torch.tensor([1.0, -0.8], dtype=F64)
        between = [2 * 0.8**n * math.sqrt(2 / gravity) for n in range(1, 4)]
        expected = math.sqrt(2 / gravity)
        for found_time, more in zip(times, [0.0, *between], strict=True):
            expected += more
            assert found_time == pytest.approx(expected, abs=1e-6)
