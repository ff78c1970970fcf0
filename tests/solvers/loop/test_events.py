"""Events: a sample's solve ends where a function of its state crosses zero."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import solvers
from solvers import (
    ETDRK4,
    PID,
    Bosh3,
    Checkpointing,
    DormandPrince,
    Event,
    HeunEuler,
    ParameterisedField,
    SemilinearField,
    TorchDiffEq,
    Tsit5,
)

TIGHT = PID(1e-8, 1e-8)
SOLVERS = [
    HeunEuler(step_size=PID(1e-5, 1e-5)),
    Bosh3(step_size=PID(1e-7, 1e-7)),
    DormandPrince(step_size=TIGHT),
    Tsit5(step_size=TIGHT),
    ETDRK4(step_size=PID(1e-6, 1e-6)),
]
RATES = torch.tensor([[0.5], [2.0], [0.1], [7.0]], dtype=torch.float64)
ONES = torch.ones(4, 1, dtype=torch.float64)


def decay(t: Tensor, y: Tensor, rates: Tensor) -> Tensor:
    return -rates * y


def decay_field(rates: Tensor, solver: Any = None) -> Any:
    """y = y0 exp(-rate t); for exponential methods with half the rate in the target."""
    if isinstance(solver, ETDRK4):
        target = ParameterisedField(lambda t, y, rates: -y + 0 * rates, rates)
        return SemilinearField(target, 2 / rates)
    return ParameterisedField(decay, rates)


def below_half(t: Tensor, y: Tensor) -> Tensor:
    return y[:, 0] - 0.5


def bounce(t: Tensor, y: Tensor) -> Tensor:
    """Circles: y = (cos t, sin t) from (1, 0)."""
    return torch.stack([-y[:, 1], y[:, 0]], 1)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_time_and_state_of_a_crossing(solver: solvers.NativeSolver) -> None:
    field = decay_field(RATES, solver)
    solution = solver.solve(field, ONES, (0.5, 2.5), event=Event(below_half))
    expected = 0.5 + math.log(2) / RATES[:, 0]
    expected[expected > 2.5] = math.nan
    assert expected.isnan().tolist() == [False, False, True, False]
    tolerance = 1e-4 if isinstance(solver, HeunEuler) else 2e-5
    torch.testing.assert_close(
        solution.event_time, expected, rtol=0, atol=tolerance, equal_nan=True
    )
    final = torch.where(expected.isnan(), torch.exp(-2 * RATES[:, 0]), 0.5)
    torch.testing.assert_close(solution.y[:, 0], final, rtol=0, atol=tolerance)
    # the state lies on the surface, as far as the path is concerned
    torch.testing.assert_close(solution.y[[0, 1, 3], 0], final[[0, 1, 3]], rtol=0, atol=1e-12)
    assert solution.status.tolist() == [0] * 4


def test_without_a_crossing_the_time_is_nan_and_the_state_that_of_t1() -> None:
    solution = Tsit5().solve(decay_field(RATES), ONES, event=Event(lambda t, y: y[:, 0] + 1))
    assert solution.event_time is not None
    assert solution.event_time.isnan().all()
    torch.testing.assert_close(solution.y, Tsit5().solve(decay_field(RATES), ONES).y)
    assert Tsit5().solve(decay_field(RATES), ONES).event_time is None


@pytest.mark.parametrize("shape", [(), (2,)])
def test_the_time_of_an_event_that_never_comes_has_no_gradient(shape: tuple[int, ...]) -> None:
    """Left out of a loss it adds nothing; that to the ends of the span is of the state alone."""
    t0, t1 = (torch.full(shape, time, dtype=torch.float64) for time in (0.25, 1.0))
    leaves = [t0.requires_grad_(), t1.requires_grad_()]
    y0 = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    solution = DormandPrince(step_size=TIGHT).solve(
        lambda t, y: -y, y0, (t0, t1), event=Event(lambda t, y: y[:, 0] + 1)
    )
    assert solution.event_time is not None
    assert solution.event_time.isnan().all()
    loss = (
        solution.y.sum() + torch.where(solution.event_time.isnan(), 0.0, solution.event_time).sum()
    )
    state = y0[:, 0] * math.exp(-0.75)
    expected = state.sum() if shape == () else state
    for grad, sign in zip(torch.autograd.grad(loss, leaves), (1, -1), strict=True):
        torch.testing.assert_close(grad, sign * expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("direction", "expected"), [(0, math.pi / 2), (-1, math.pi / 2), (1, 3 * math.pi / 2)]
)
def test_direction(direction: int, expected: float) -> None:
    y0 = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    event = Event(lambda t, y: y[:, 0], direction)
    solution = DormandPrince(step_size=TIGHT).solve(bounce, y0, (0.0, 6.0), event=event)
    assert solution.event_time is not None
    assert float(solution.event_time) == pytest.approx(expected, abs=1e-7)
    sine = math.sin(expected)
    torch.testing.assert_close(solution.y, torch.tensor([[0.0, sine]]).double(), atol=1e-7, rtol=0)


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_the_first_of_several_crossings_within_one_step(parts: int) -> None:
    """The field is still, so that the steps are long, and the event's function crosses often."""
    event = Event(lambda t, y: torch.cos(parts * math.pi * t.view(-1)) + 0 * y[:, 0])
    solver = Tsit5(step_size=PID(first_step=1.0))
    solution = solver.solve(ParameterisedField(lambda t, y: 0 * y), ONES, event=event)
    assert solution.event_time is not None
    assert solution.stats.accepted.tolist() == [1] * 4  # type: ignore[union-attr]
    expected = torch.full((4,), 0.5 / parts, dtype=torch.float64)
    torch.testing.assert_close(solution.event_time, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("place", [0.3, 0.58, 0.71])
def test_a_crossing_there_and_back_between_the_points_that_are_looked_at(place: float) -> None:
    """A dip below zero of a fiftieth of the span: its turn is looked at too."""
    event = Event(lambda t, y: (t.view(-1) - place).square() - 1e-4 + 0 * y[:, 0])
    solver = Tsit5(step_size=PID(first_step=1.0))
    solution = solver.solve(ParameterisedField(lambda t, y: 0 * y), ONES, event=event)
    expected = torch.full((4,), place - 0.01, dtype=torch.float64)
    torch.testing.assert_close(solution.event_time, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("direction", "expected"), [(1, 0.21875), (-1, 0.25), (0, 0.21875)])
def test_a_root_at_a_point_that_is_looked_at(direction: int, expected: float) -> None:
    """Up at 7/32 and down at 8/32, where the value is 0 without any rounding."""
    event = Event(
        lambda t, y: -(t.view(-1) - 0.21875) * (t.view(-1) - 0.25) + 0 * y[:, 0], direction
    )
    solver = Tsit5(step_size=PID(first_step=1.0))
    solution = solver.solve(ParameterisedField(lambda t, y: 0 * y), ONES, event=event)
    expected_times = torch.full((4,), expected, dtype=torch.float64)
    torch.testing.assert_close(solution.event_time, expected_times, rtol=1e-9, atol=1e-9)


def test_a_function_of_time_alone_and_times_of_each_sample() -> None:
    limits = torch.tensor([0.25, 0.5, 3.0, 0.75], dtype=torch.float64)
    event = Event(ParameterisedField(lambda t, y, limits: t.view(-1) - limits, limits))
    solution = Tsit5().solve(decay_field(RATES), ONES, event=event)
    expected = torch.where(limits < 1, limits, math.nan)
    torch.testing.assert_close(solution.event_time, expected, equal_nan=True)
    time = limits.clamp(max=1.0)[:, None]
    torch.testing.assert_close(solution.y, torch.exp(-RATES * time), rtol=1e-4, atol=1e-4)


def test_an_event_at_the_start_or_at_the_end() -> None:
    """A sample that starts on the surface has not crossed it; one that ends on it has."""
    field = decay_field(RATES[:2])
    y0 = torch.tensor([[0.5], [0.5]], dtype=torch.float64)
    solution = Tsit5().solve(field, y0, event=Event(below_half))
    assert solution.event_time is not None
    assert solution.event_time.isnan().all()
    event = Event(lambda t, y: t.view(-1) - 1.0)
    assert Tsit5().solve(field, y0, event=event).event_time.tolist() == [1.0, 1.0]


def test_event_does_not_depend_on_the_batch() -> None:
    whole = Tsit5().solve(decay_field(RATES), ONES, (0.0, 2.0), event=Event(below_half))
    order = [2, 0, 3, 1]
    mixed = Tsit5().solve(decay_field(RATES[order]), ONES, (0.0, 2.0), event=Event(below_half))
    torch.testing.assert_close(mixed.event_time, whole.event_time[order], equal_nan=True)
    for row in range(4):
        field = decay_field(RATES[row : row + 1])
        alone = Tsit5().solve(field, ONES[:1], (0.0, 2.0), event=Event(below_half))
        torch.testing.assert_close(alone.y[0], whole.y[row], rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(
            alone.event_time[0], whole.event_time[row], rtol=1e-13, atol=1e-13, equal_nan=True
        )


@pytest.mark.parametrize("gradient", [solvers.Backpropagation(), Checkpointing()], ids=repr)
def test_gradients_of_time_and_state(gradient: solvers.GradientMode) -> None:
    """With y = y0 exp(-r t) and a threshold c: the time is log(y0 / c) / r, the state is c."""
    solver = DormandPrince(step_size=TIGHT, gradient=gradient)
    y0 = torch.tensor([[1.0], [1.5], [0.8]], dtype=torch.float64, requires_grad=True)
    rates = torch.tensor([[0.9], [2.0], [0.1]], dtype=torch.float64, requires_grad=True)
    limit = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    event = Event(lambda t, y: y[:, 0] - limit)
    solution = solver.solve(decay_field(rates), y0, (0.0, 2.0), event=event)
    assert solution.event_time is not None
    time = torch.log(y0[:2, 0] / limit) / rates[:2, 0]
    late = (y0[2, 0] * torch.exp(-2 * rates[2, 0])).view(1)
    torch.testing.assert_close(solution.event_time[:2], time, rtol=1e-6, atol=1e-6)
    leaves = y0, rates, limit
    found = torch.autograd.grad(solution.event_time[:2].sum(), leaves, retain_graph=True)
    for ours, exact in zip(found, torch.autograd.grad(time.sum(), leaves), strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-5)
    found = torch.autograd.grad(solution.y.sum(), leaves)
    state = 2 * limit + late.sum()  # on the surface the state is the threshold, whatever else
    for ours, exact in zip(found, torch.autograd.grad(state, leaves), strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-5)


def test_gradient_of_a_component_that_is_not_on_the_surface() -> None:
    """It moves with the time of the event: dy/dp + f dt/dp."""
    angle = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    y0 = torch.stack([torch.cos(angle), torch.sin(angle)], 1)
    speed = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    event = Event(lambda t, y: y[:, 1] - 0.6 * t.view(-1))
    solution = DormandPrince(step_size=TIGHT).solve(
        lambda t, y: speed * bounce(t, y), y0, (0.0, 3.0), event=event
    )
    time = solution.event_time
    assert time is not None
    # g = sin(angle + speed t) - 0.6 t = 0
    phase = angle + speed * time.detach()
    slope = speed * torch.cos(phase) - 0.6
    exact = time.detach() - (torch.sin(phase) - 0.6 * time.detach()) / slope.detach()
    leaves = angle, speed
    found = torch.autograd.grad(time.sum(), leaves, retain_graph=True)
    for ours, theirs in zip(found, torch.autograd.grad(exact.sum(), leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    phase = angle + speed * time.detach()
    exact = time.detach() - (torch.sin(phase) - 0.6 * time.detach()) / slope.detach()
    final = torch.cos(angle + speed * exact)
    found = torch.autograd.grad(solution.y[:, 0].sum(), leaves)
    for ours, theirs in zip(found, torch.autograd.grad(final.sum(), leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("of_each", [False, True])
def test_states_after_an_event_are_nan(of_each: bool) -> None:
    times = torch.tensor([0.0, 0.3, 0.6, 1.2, 2.0], dtype=torch.float64)
    t_eval = times[:, None].expand(5, 4) if of_each else times
    solution = Tsit5(step_size=TIGHT).solve(
        decay_field(RATES), ONES, (0.0, 2.0), t_eval=t_eval, event=Event(below_half)
    )
    assert solution.ys is not None
    exact = torch.exp(-RATES[:, 0] * times[:, None])
    over = times[:, None] > math.log(2) / RATES[:, 0]
    expected = torch.where(over, math.nan, exact)
    torch.testing.assert_close(solution.ys[..., 0], expected, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("selectable", [True, False])
def test_samples_that_met_their_event_are_not_evaluated_any_more(selectable: bool) -> None:
    """If the event can be asked for the others alone, as the field can."""
    sizes = []

    def field(t: Tensor, y: Tensor, rates: Tensor) -> Tensor:
        sizes.append(len(y))
        return -rates * y

    y0 = torch.tensor([[1.0], [0.51], [0.7]], dtype=torch.float64)
    counted = ParameterisedField(field, ONES[:3])
    event = Event(ParameterisedField(below_half) if selectable else below_half)
    solution = Tsit5(step_size=TIGHT).solve(counted, y0, (0.0, 3.0), event=event)
    assert (sizes[0], sizes[-1]) == (3, 1 if selectable else 3)
    assert sizes == sorted(sizes, reverse=True)
    expected = torch.log(y0[:, 0] / 0.5)
    torch.testing.assert_close(solution.event_time, expected, rtol=1e-6, atol=1e-6)
    nfe = solution.stats.nfe
    assert isinstance(nfe, Tensor)
    assert int(nfe.sum()) == sum(sizes)
    assert nfe[1] < nfe[2] < nfe[0] or not selectable


def test_a_row_that_met_its_event_does_not_disturb_what_comes_after() -> None:
    """The field is a plain function, which keeps the row, and is not finite where it stopped."""
    rate = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    asked = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        asked.append(len(y))
        return -rate * y / (y - 0.4 > 0).to(y.dtype)

    y0 = torch.tensor([[0.8], [3.0]], dtype=torch.float64)
    event = Event(lambda t, y: y[:, 0] - 0.5)
    solution = Tsit5(step_size=TIGHT).solve(field, y0, (0.0, 1.5), event=event)
    assert set(asked) == {2}
    assert solution.event_time is not None
    torch.testing.assert_close(solution.event_time[0].item(), math.log(1.6), rtol=1e-6, atol=0)
    torch.testing.assert_close(solution.y[1].item(), 3 * math.exp(-1.5), rtol=1e-6, atol=0)
    (grad,) = torch.autograd.grad(solution.y[1].sum(), rate)
    torch.testing.assert_close(grad.item(), -4.5 * math.exp(-1.5), rtol=1e-6, atol=0)


def test_an_event_function_that_holds_tensors_of_each_sample() -> None:
    """A closure cannot be asked for a part of the batch; its samples are evaluated to the end."""
    limits = torch.tensor([0.9, 0.2, 0.6, 0.4], dtype=torch.float64)
    field = ParameterisedField(decay, RATES)
    event = Event(lambda t, y: y[:, 0] - limits)
    solution = Tsit5(step_size=TIGHT).solve(field, ONES, (0.0, 4.0), event=event)
    expected = -torch.log(limits) / RATES[:, 0]
    expected[expected > 4] = math.nan
    torch.testing.assert_close(solution.event_time, expected, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("solver", [DormandPrince(), solvers.Heun(steps=20)], ids=repr)
def test_a_function_of_all_rows_is_refused(solver: solvers.NativeSolver) -> None:
    """Its rows are looked at at different times, so that their mean is none."""
    event = Event(lambda t, y: y.mean().expand(len(y)) - 0.5)
    with pytest.raises(ValueError, match="an event's function: Rows of the state depend"):
        solver.solve(lambda t, y: -RATES * y, ONES, event=event)


def test_failed_samples_have_no_event() -> None:
    def field(t: Tensor, y: Tensor, bad: Tensor) -> Tensor:
        return torch.where(bad & (y < 0.8), math.nan, -y)

    bad = torch.tensor([[False], [True], [False]])
    solution = Tsit5().solve(
        ParameterisedField(field, bad), ONES[:3], (0.0, 2.0), event=Event(below_half), throw=False
    )
    assert solution.status.tolist() == [0, solvers.NON_FINITE, 0]
    assert solution.event_time is not None
    assert solution.event_time.isnan().tolist() == [False, True, False]
    assert float(solution.event_time[0]) == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision(dtype: torch.dtype) -> None:
    y0 = torch.tensor([[1.0], [0.75]], dtype=dtype)
    solution = Tsit5().solve(lambda t, y: -y, y0, event=Event(below_half))
    assert solution.y.dtype == dtype
    assert solution.event_time is not None
    expected = torch.log(y0[:, 0].double() / 0.5)
    error = (solution.event_time.double() - expected).abs().max()
    assert float(error) < {torch.float32: 1e-4}.get(dtype, 3e-2)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="direction must be -1, 0 or 1, not 2"):
        Event(below_half, 2)
    with pytest.raises(ValueError, match=r"needs a function\(t, y\), not float"):
        Event(0.5)  # type: ignore[arg-type]
    wrong = Event(lambda t, y: y - 0.5)
    with pytest.raises(ValueError, match=r"one value a sample, shape \(4,\); it returned \(4, 1\)"):
        Tsit5().solve(decay_field(RATES), ONES, event=wrong)
    with pytest.raises(ValueError, match="it returned float"):
        Tsit5().solve(decay_field(RATES), ONES, event=Event(lambda t, y: 0.5))  # type: ignore[arg-type,return-value]
    for method in ("rk4", "dopri5"):
        with pytest.raises(ValueError, match="take a native solver with error control"):
            TorchDiffEq(method).solve(decay_field(RATES), ONES, event=Event(below_half))


@pytest.mark.parametrize("place", [0.03, 0.3, 0.48, 0.52, 0.58, 0.97])
def test_across_and_back_within_a_part_of_a_step(place: float) -> None:
    solver = Tsit5(step_size=PID(first_step=1.0))
    near = Event(lambda t, y: (t.view(-1) - place).square() - 1e-4)
    solution = solver.solve(lambda t, y: 0 * y, torch.ones(2, 1, dtype=torch.float64), event=near)
    assert solution.event_time is not None
    expected = torch.full((2,), place - 0.01, dtype=torch.float64)
    torch.testing.assert_close(solution.event_time, expected, rtol=0.0, atol=1e-9)
