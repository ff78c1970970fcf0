"""Several events in one solve, terminal or not, and all their crossings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import solvers
from solvers import (
    PID,
    Backpropagation,
    Checkpointing,
    DormandPrince,
    Event,
    ParameterisedField,
    Tsit5,
)

F64 = torch.float64
TIGHT = DormandPrince(rtol=1e-9, atol=1e-9)
LONG = Tsit5(step_size=PID(first_step=1.0, factor_max=100.0))
"""Whose steps are long, on a field that is still."""


def circle(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([-y[:, 1], y[:, 0]], 1)


def still(t: Tensor, y: Tensor) -> Tensor:
    return 0 * y


def at_time(time: float, *, terminal: bool = True) -> Event:
    return Event(lambda t, y: t.view(-1) - time, terminal=terminal)


ANGLES = torch.tensor([0.0, math.pi / 2, math.pi], dtype=F64)
CIRCLES = torch.stack([torch.cos(ANGLES), torch.sin(ANGLES)], 1)


@pytest.mark.parametrize("gradient", [Backpropagation(), Checkpointing()], ids=repr)
@pytest.mark.parametrize("selectable", [True, False])
def test_each_crossing_of_each_event(gradient: solvers.GradientMode, selectable: bool) -> None:
    """x = cos(t + angle) is 0 at pi/2, 3 pi/2, ...; y passes 1/2 upwards at pi/6, 13 pi/6, ..."""
    functions: list[Any] = [
        lambda t, y: y[:, 0],
        lambda t, y: y[:, 1] - 0.5,
        lambda t, y: t.view(-1) - 9.0,
    ]
    field: Any = circle
    if selectable:
        functions = [ParameterisedField(each) for each in functions]
        field = ParameterisedField(circle)
    events = [
        Event(functions[0], terminal=False),
        Event(functions[1], 1, terminal=False),
        Event(functions[2]),
    ]
    solver = DormandPrince(rtol=1e-9, atol=1e-9, gradient=gradient)
    found = solver.solve(field, CIRCLES.clone().requires_grad_(), (0.0, 20.0), event=events)
    assert found.event_index is not None
    assert found.event_index.dtype == torch.int64
    assert found.event_index.tolist() == [2, 2, 2]
    x, up, end = found.events
    samples, times = [], []
    for sample, angle in enumerate(ANGLES.tolist()):
        for number in range(-1, 9):
            time = math.pi / 2 + number * math.pi - angle
            if 1e-6 < time < 9:  # that at t0 is none
                samples.append(sample)
                times.append(time)
    assert x.samples.tolist() == samples
    torch.testing.assert_close(x.times, torch.tensor(times, dtype=F64), rtol=0, atol=1e-7)
    phase = x.times + ANGLES[x.samples]
    states = torch.stack([torch.cos(phase), torch.sin(phase)], 1)
    torch.testing.assert_close(x.states, states, rtol=0, atol=1e-6)
    assert up.samples.tolist() == [0, 0, 1, 2, 2][: len(up.samples)]
    torch.testing.assert_close(up.states[:, 1], torch.full_like(up.times, 0.5), rtol=0, atol=1e-9)
    assert bool((up.states[:, 0] > 0).all())
    assert end.samples.tolist() == [0, 1, 2]
    torch.testing.assert_close(end.times, torch.full((3,), 9.0, dtype=F64))
    torch.testing.assert_close(end.states, found.y)


def test_events_that_are_not_terminal_leave_the_solve_as_it_is() -> None:
    alone = TIGHT.solve(circle, CIRCLES, (0.0, 5.0))
    event = Event(lambda t, y: y[:, 0], terminal=False)
    found = TIGHT.solve(circle, CIRCLES, (0.0, 5.0), event=event)
    torch.testing.assert_close(found.y, alone.y, rtol=1e-12, atol=1e-13)
    assert found.event_time is not None
    assert found.event_time.isnan().all()
    assert found.event_index is not None
    assert found.event_index.tolist() == [-1] * 3
    assert alone.events == ()
    assert alone.event_index is None


def test_of_two_terminal_events_in_one_step_the_earlier_ends_the_sample() -> None:
    """Whatever their order; and what lies after it is not recorded."""
    y0 = torch.ones(2, 1, dtype=F64)
    late, early = at_time(0.7), at_time(0.3)
    for events, index in (([late, early], 1), ([early, late], 0)):
        passed = [at_time(0.2, terminal=False), at_time(0.5, terminal=False)]
        found = LONG.solve(still, y0, event=[*events, *passed])
        assert found.event_index is not None
        assert found.event_index.tolist() == [index] * 2
        assert found.event_time is not None
        torch.testing.assert_close(found.event_time, torch.full((2,), 0.3, dtype=F64))
        counts = [len(each.times) for each in found.events]
        assert counts == [2 * (index == 0), 2 * (index == 1), 2, 0]


def test_events_at_the_same_time_are_all_recorded_and_the_first_ends_the_sample() -> None:
    y0 = torch.ones(2, 1, dtype=F64)
    events = [
        at_time(0.3, terminal=False),
        Event(lambda t, y: 2 * (t.view(-1) - 0.3)),
        Event(lambda t, y: 0.3 - t.view(-1)),
        at_time(0.3, terminal=False),
    ]
    found = LONG.solve(still, y0, event=events)
    assert found.event_index is not None
    assert found.event_index.tolist() == [1, 1]
    assert [len(each.times) for each in found.events] == [2, 2, 2, 2]


def test_all_crossings_within_one_step() -> None:
    """cos(5 pi t) has five in (0, 1); and two dips, of which each is crossed twice."""
    y0 = torch.ones(2, 1, dtype=F64)
    waves = Event(lambda t, y: torch.cos(5 * math.pi * t.view(-1)), terminal=False)
    found = LONG.solve(still, y0, event=waves)
    assert found.stats.accepted.tolist() == [2, 2]  # type: ignore[union-attr]
    times = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9] * 2, dtype=F64)
    torch.testing.assert_close(found.events[0].times, times, rtol=0, atol=1e-9)
    assert found.events[0].samples.tolist() == [0] * 5 + [1] * 5

    def dips(t: Tensor, y: Tensor) -> Tensor:
        time = t.view(-1)
        near = torch.minimum((time - 0.08).abs(), (time - 0.41).abs())
        return near.square() - 1e-5

    found = LONG.solve(still, y0, event=Event(dips, terminal=False))
    half = math.sqrt(1e-5)
    times = torch.tensor([p + s * half for p in (0.08, 0.41) for s in (-1, 1)] * 2, dtype=F64)
    torch.testing.assert_close(found.events[0].times, times, rtol=0, atol=1e-8)


@pytest.mark.parametrize("solver", [DormandPrince(), solvers.Heun(1), solvers.Euler(1)], ids=repr)
def test_a_straight_line_through_several_roots_in_long_steps(solver: solvers.NativeSolver) -> None:
    """The field lets the steps grow; the signs at both ends of one may be the same."""
    y0 = torch.tensor([[-1.0], [1.0], [0.0]], dtype=F64)
    event = Event(lambda t, y: y[:, 0] * (y[:, 0] - 2.5) * (y[:, 0] - 5.0), terminal=False)
    found = solver.solve(lambda t, y: torch.ones_like(y), y0, (0.0, 10.0), event=event)
    assert found.events[0].samples.tolist() == [0, 0, 0, 1, 1, 2, 2]
    times = [1.0, 3.5, 6.0, 1.5, 4.0, 2.5, 5.0]
    assert found.events[0].times.tolist() == pytest.approx(times, abs=1e-9)


def test_times_of_a_tenth_of_a_picosecond() -> None:
    """An electron in a field, over a micrometre."""
    push, way = 1.7588e20, 1e-6
    time = math.sqrt(2 * way / push)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[:, 1], torch.full_like(y[:, 0], push)], 1)

    event = Event(lambda t, y: y[:, 0] - way)
    for solver in (DormandPrince(rtol=1e-8, atol=1e-14), solvers.Heun(10)):
        y0 = torch.zeros(1, 2, dtype=F64)
        found = solver.solve(field, y0, (0.0, 1.51 * time), event=event, dense=True)
        assert found.event_time is not None
        assert found.path is not None
        assert float(found.event_time) == pytest.approx(time, rel=1e-9)
        torch.testing.assert_close(found.path(found.event_time[None])[0], found.y)


def test_a_dip_that_does_not_reach_zero() -> None:
    y0 = torch.ones(1, 1, dtype=F64)
    over = Event(lambda t, y: (t.view(-1) - 0.4).square() + 1e-6, terminal=False)
    found = LONG.solve(still, y0, event=over)
    assert found.events[0].times.tolist() == []


def test_a_crossing_on_the_boundary_of_two_steps_counts_once() -> None:
    """The steps are halves of the span, and the event lies just there."""
    y0 = torch.ones(2, 1, dtype=F64)
    for sign in (1.0, -1.0):
        event = Event(lambda t, y, s=sign: s * (t.view(-1) - 0.5), terminal=False)
        for solver in (LONG, solvers.Heun(2), solvers.ClassicRK4(8)):
            found = solver.solve(still, y0, event=event)
            assert found.events[0].times.tolist() == pytest.approx([0.5, 0.5], abs=1e-12)


def test_gradients_of_all_crossings() -> None:
    """With y = y0 exp(-r t) and levels c: log(y0 / c) / r."""
    y0 = torch.tensor([[1.0], [1.5]], dtype=F64, requires_grad=True)
    rates = torch.tensor([[0.9], [2.0]], dtype=F64, requires_grad=True)
    levels = torch.tensor([0.8, 0.6, 0.5], dtype=F64, requires_grad=True)
    first, second, last = levels.unbind()
    events = [
        Event(lambda t, y: y[:, 0] - first, terminal=False),
        Event(lambda t, y: y[:, 0] - second, terminal=False),
        Event(lambda t, y: y[:, 0] - last),
    ]
    field = ParameterisedField(lambda t, y, rates: -rates * y, rates)
    found = TIGHT.solve(field, y0, (0.0, 2.0), event=events)
    times = torch.stack([each.times for each in found.events])
    exact = torch.log(y0[:, 0] / levels[:, None]) / rates[:, 0]
    torch.testing.assert_close(times, exact, rtol=1e-7, atol=1e-7)
    leaves = y0, rates, levels
    weights = torch.arange(1.0, 7.0, dtype=F64).view(3, 2)
    ours = torch.autograd.grad((weights * times).sum(), leaves, retain_graph=True)
    theirs = torch.autograd.grad((weights * exact).sum(), leaves)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    states = torch.stack([each.states[:, 0] for each in found.events])
    ours = torch.autograd.grad((weights * states).sum(), leaves)
    assert ours[0].abs().max() < 1e-6
    torch.testing.assert_close(ours[2], weights.sum(1), rtol=1e-6, atol=1e-6)


def test_a_solve_that_starts_on_an_event_with_a_step_that_is_rejected() -> None:
    """A ball on the ground, of which rounding may say that it lies just above."""

    def fall(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[:, 1], -9.81 - y[:, 1] ** 3], 1)

    y0 = torch.tensor([[-1e-17, 3.0], [1e-17, 3.0]], dtype=F64)
    solver = DormandPrince(step_size=PID(1e-8, 1e-8, first_step=0.5))
    found = solver.solve(fall, y0, (0.0, 2.0), event=Event(lambda t, y: y[:, 0]))
    assert found.event_time is not None
    assert bool((found.stats.rejected > 0).all())  # type: ignore[union-attr,operator]
    assert bool((found.event_time > 0.1).all())


def test_events_of_one_system() -> None:
    def spin(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([-y[1], y[0]])

    events = [Event(lambda t, y: y[0], terminal=False), Event(lambda t, y: t - 5.0)]
    y0 = torch.tensor([1.0, 0.0], dtype=F64)
    for solver in (TIGHT, solvers.ClassicRK4(500)):
        found = solver.solve(spin, y0, (0.0, 20.0), event=events)
        assert found.event_index is not None
        assert (found.event_index.shape, int(found.event_index)) == ((), 1)
        zero, end = found.events
        assert zero.samples.tolist() == [0, 0]
        assert zero.states.shape == (2, 2)
        assert zero.times.tolist() == pytest.approx([math.pi / 2, 1.5 * math.pi], abs=1e-6)
        assert end.states.shape == (1, 2)
    number = TIGHT.solve(
        lambda t, y: -y, torch.tensor(1.0, dtype=F64), event=Event(lambda t, y: y - 0.5)
    )
    assert number.events[0].states.shape == (1,)
    shared = DormandPrince(step_size=PID(shared=True))
    both = shared.solve(lambda t, y: -y, CIRCLES + 2, event=Event(lambda t, y: y.sum() - 8.0))
    assert both.events[0].states.shape == (1, 3, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision(dtype: torch.dtype) -> None:
    events = [Event(lambda t, y: y[:, 0] - 0.7, terminal=False), Event(lambda t, y: y[:, 0] - 0.5)]
    y0 = torch.ones(2, 1, dtype=dtype)
    for solver in (Tsit5(), solvers.Heun(20)):
        found = solver.solve(lambda t, y: -y, y0, event=events)
        assert found.events[0].states.dtype == dtype
        assert found.events[0].times.dtype == torch.float32
        slack = 1e-3 if dtype == torch.float32 else 3e-2
        assert found.events[0].times.tolist() == pytest.approx([-math.log(0.7)] * 2, abs=slack)


def test_no_samples() -> None:
    found = Tsit5().solve(lambda t, y: -y, torch.ones(0, 3), event=at_time(0.5))
    assert found.event_index is not None
    assert found.event_index.shape == (0,)
    assert found.events[0].states.shape == (0, 3)


def test_failed_samples_keep_the_crossings_before() -> None:
    def field(t: Tensor, y: Tensor, bad: Tensor) -> Tensor:
        return torch.where(bad & (y < 0.6), math.nan, -y)

    bad = torch.tensor([[False], [True], [False]])
    high = Event(lambda t, y: y[:, 0] - 0.8, terminal=False)
    low = Event(lambda t, y: y[:, 0] - 0.4, terminal=False)
    found = Tsit5().solve(
        ParameterisedField(field, bad),
        torch.ones(3, 1, dtype=F64),
        (0.0, 2.0),
        event=[high, low],
        throw=False,
    )
    assert [each.samples.tolist() for each in found.events] == [[0, 1, 2], [0, 2]]
    assert found.status.tolist() == [0, solvers.NON_FINITE, 0]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="terminal must be True or False"):
        Event(still, terminal=1)  # type: ignore[arg-type]
    for wrong in ([still], [at_time(1.0), None], "event"):
        with pytest.raises(ValueError, match=r"solvers\.Event\(function\), or a sequence"):
            Tsit5().solve(still, CIRCLES, event=wrong)  # type: ignore[arg-type]
