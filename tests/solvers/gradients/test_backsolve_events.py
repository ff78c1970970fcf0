"""Events by the adjoint method: exact gradients of their times and states."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import solvers
from solvers import (
    BacksolveAdjoint,
    ClassicRK4,
    DormandPrince,
    Event,
    GradientScaled,
    NativeSolver,
    ParameterisedField,
)

F64 = torch.float64
ADJOINT = BacksolveAdjoint()
TIGHT = DormandPrince(rtol=1e-9, atol=1e-10, gradient=ADJOINT)
SOLVERS: list[NativeSolver] = [
    TIGHT,
    ClassicRK4(300, gradient=ADJOINT),
    ClassicRK4(step_size=GradientScaled(300), gradient=ADJOINT),
    DormandPrince(200, gradient=BacksolveAdjoint(DormandPrince(rtol=1e-10, atol=1e-10))),
]


def leaves() -> tuple[Tensor, Tensor, Tensor]:
    """Initial states, rates and two levels; the third sample does not come to the lower one."""
    y0 = torch.tensor([[1.0], [1.5], [0.65]], dtype=F64, requires_grad=True)
    rates = torch.tensor([[0.9], [2.0], [0.1]], dtype=F64, requires_grad=True)
    levels = torch.tensor([0.6, 0.5], dtype=F64, requires_grad=True)
    return y0, rates, levels


def solved(
    solver: NativeSolver, y0: Tensor, rates: Tensor, levels: Tensor, selectable: bool, **more: Any
) -> solvers.Solution:
    """y = y0 exp(-r t) over (0, 2), with a crossing of the first level and an end at the second."""
    field: Any = lambda t, y: -rates * y  # noqa: E731
    if selectable:
        field = ParameterisedField(lambda t, y, r: -r * y, rates)
    high, low = levels.unbind()
    events = [
        Event(lambda t, y: y[:, 0] - high, terminal=False),
        Event(lambda t, y: y[:, 0] - low),
    ]
    return solver.solve(field, y0, (0.0, 2.0), event=events, **more)


def require_equal_gradients(found: Tensor, exact: Tensor, leaves: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)
    weights = torch.arange(1.0, 1.0 + exact.numel(), dtype=F64).view(exact.shape)
    options: dict[str, Any] = {"retain_graph": True, "materialize_grads": True}
    ours = torch.autograd.grad((weights * found).sum(), leaves, allow_unused=True, **options)
    theirs = torch.autograd.grad((weights * exact).sum(), leaves, allow_unused=True, **options)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("selectable", [True, False])
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_times_and_states(solver: NativeSolver, selectable: bool) -> None:
    y0, rates, levels = own = leaves()
    found = solved(solver, *own, selectable, t_eval=[0.1, 0.7])
    assert found.event_time is not None
    times = torch.log(y0 / levels) / rates  # (3, 2)
    require_equal_gradients(found.event_time[:2], times[:2, 1], own)
    last = torch.stack([levels[1], levels[1], (y0 * torch.exp(-2 * rates))[2, 0]])
    require_equal_gradients(found.y[:, 0], last, own)
    crossed, ended = found.events
    require_equal_gradients(crossed.times, times[:, 0], own)
    require_equal_gradients(crossed.states[:, 0], levels[0].expand(3), own)
    require_equal_gradients(ended.times, times[:2, 1], own)
    assert found.ys is not None
    exact = y0[:, 0] * torch.exp(-rates[:, 0] * torch.tensor([[0.1], [0.7]], dtype=F64))
    known = ~found.ys[..., 0].isnan()
    assert known.tolist() == [[True] * 3, [True, False, True]]
    require_equal_gradients(found.ys[..., 0][known], exact[known], own)


def test_the_numbers_are_those_of_backpropagation() -> None:
    own = leaves()
    plain = solved(DormandPrince(rtol=1e-9, atol=1e-10), *own, True)
    found = solved(TIGHT, *own, True)
    torch.testing.assert_close(found.y, plain.y, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.event_time, plain.event_time, equal_nan=True)
    torch.testing.assert_close(found.event_index, plain.event_index)
    for ours, theirs in zip(found.events, plain.events, strict=True):
        torch.testing.assert_close(ours.states, theirs.states)
        assert torch.equal(ours.samples, theirs.samples)
    with torch.no_grad():
        quiet = solved(TIGHT, *own, True)
    assert not quiet.y.requires_grad


def test_a_component_that_is_not_on_the_surface() -> None:
    """Circles from (1, 0): y = 0.6 at asin(0.6) / w, where x = 0.8, whatever w is."""
    speed = torch.tensor([1.3, 0.7], dtype=F64, requires_grad=True)
    level = torch.tensor(0.6, dtype=F64, requires_grad=True)
    y0 = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=F64)
    field = ParameterisedField(
        lambda t, y, w: w[:, None] * torch.stack([-y[:, 1], y[:, 0]], 1), speed
    )
    found = TIGHT.solve(field, y0, (0.0, 3.0), event=Event(lambda t, y: y[:, 1] - level))
    assert found.event_time is not None
    require_equal_gradients(found.event_time, torch.asin(level) / speed, (speed, level))
    cosine = torch.sqrt(1 - level**2).expand(2)
    require_equal_gradients(found.y[:, 0], cosine, (speed, level))


def test_an_event_of_time_that_only_its_function_has_a_gradient_for() -> None:
    limit = torch.tensor(0.4, dtype=F64, requires_grad=True)
    y0 = torch.ones(2, 1, dtype=F64, requires_grad=True)
    event = Event(lambda t, y: t.view(-1) - limit)
    found = TIGHT.solve(lambda t, y: -y, y0, event=event)
    exact = (y0 * torch.exp(-limit))[:, 0]
    require_equal_gradients(found.y[:, 0], exact, (y0, limit))
    alone = TIGHT.solve(lambda t, y: -y, y0.detach(), event=event)
    require_equal_gradients(alone.y[:, 0], torch.exp(-limit).expand(2), (limit,))


def test_one_system_lower_precision_and_jumps() -> None:
    rate = torch.tensor(0.8, requires_grad=True)
    stop = Event(lambda t, y: y[0] - 0.5)
    solver = DormandPrince(gradient=ADJOINT)
    found = solver.solve(lambda t, y: -rate * y, torch.ones(2), event=stop, jump_times=[0.3])
    assert found.event_time is not None
    (ours,) = torch.autograd.grad(found.event_time, rate)
    assert float(ours) == pytest.approx(-math.log(2) / 0.64, rel=1e-4)
    own = [each.detach().float().requires_grad_() for each in leaves()]
    single = solved(DormandPrince(gradient=ADJOINT), *own, True)
    assert single.event_time is not None
    single.event_time[0].backward()
    assert own[0].grad is not None
    assert float(own[0].grad[0, 0]) == pytest.approx(1 / 0.9, rel=1e-3)


def test_asked_times_with_gradients() -> None:
    """Times that have a gradient, beside an event."""
    own = leaves()
    y0, rates, _ = own
    asked = torch.tensor([0.1, 0.2], dtype=F64, requires_grad=True)
    found = solved(TIGHT, *own, True, t_eval=asked)
    assert found.ys is not None
    exact = (y0[:, 0] * torch.exp(-rates[:, 0] * asked[:, None])).expand(2, 3)
    require_equal_gradients(found.ys[..., 0], exact, (*own, asked))


def test_failed_samples_beside_events() -> None:
    def field(t: Tensor, y: Tensor, rates: Tensor, bad: Tensor) -> Tensor:
        return torch.where(bad & (y < 0.9), math.nan, -rates * y)

    bad = torch.tensor([[False], [True], [False]])
    rates = torch.tensor([[0.9], [2.0], [0.5]], dtype=F64, requires_grad=True)
    event = Event(ParameterisedField(lambda t, y: y[:, 0] - 0.5))
    found = TIGHT.solve(
        ParameterisedField(field, rates, bad),
        torch.ones(3, 1, dtype=F64),
        (0.0, 3.0),
        event=event,
        throw=False,
    )
    assert found.status.tolist() == [0, solvers.NON_FINITE, 0]
    assert found.event_time is not None
    good = torch.tensor([0, 2])
    (ours,) = torch.autograd.grad(found.event_time[good].sum(), rates)
    expected = -math.log(2) / rates.detach()[good].square()
    torch.testing.assert_close(ours[good], expected, rtol=1e-5, atol=0)
    assert float(ours[1]) == 0.0
