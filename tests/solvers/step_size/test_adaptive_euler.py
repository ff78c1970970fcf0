"""The contract of the default solver, Euler with gradient-scaled steps."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from liquid_ode.cells import LiquidField
from solvers import Euler, GradientScaled, QuasilinearField, SemilinearField, Uniform
from tests.solvers.fields import is_taped, liquid_field, reference


class Recorder:
    """A field that notes the times at which it was asked."""

    def __init__(self, speeds: Tensor) -> None:
        self.speeds = speeds  # dy/dt of every sample
        self.times: list[Tensor] = []

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.times.append(t.expand(len(y), 1).clone())
        return self.speeds.to(y.dtype).expand_as(y)


@pytest.mark.parametrize("steps", [1, 3, 5, 7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_takes_exactly_its_steps_and_lands_on_t1(steps: int, dtype: torch.dtype) -> None:
    speeds = torch.tensor([[0.0], [0.5], [2.0], [50.0]], dtype=dtype)
    recorder = Recorder(speeds)
    y0 = torch.zeros(4, 3, dtype=dtype)
    solution = Euler(steps=steps).solve(recorder, y0, (0.5, 2.0))
    assert len(recorder.times) == solution.stats.nfe == steps
    # dy/dt is constant, so the state tells the time that the steps add up to
    expected = (1.5 * speeds).expand(4, 3)
    tolerance = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(solution.y, expected, rtol=tolerance, atol=tolerance)


def test_steps_are_per_sample_and_shorter_where_the_derivative_is_larger() -> None:
    recorder = Recorder(torch.tensor([[0.1], [1.0], [3.0], [6.0]], dtype=torch.float64))
    Euler(steps=5).solve(recorder, torch.zeros(4, 8, dtype=torch.float64))
    first_steps = recorder.times[1].flatten()
    assert (first_steps[1:] < first_steps[:-1]).all()
    assert recorder.times[0].abs().max() == 0


def test_no_gradient_through_the_step_sizes() -> None:
    y0 = torch.full((1, 1), 2.0, dtype=torch.float64, requires_grad=True)
    sizes: list[float] = []
    times: list[float] = []

    def decay(t: Tensor, y: Tensor) -> Tensor:
        times.append(float(t))
        return -y

    y = Euler(steps=3).solve(decay, y0).y
    times.append(1.0)
    sizes = [later - earlier for earlier, later in pairwise(times)]
    (grad,) = torch.autograd.grad(y.sum(), y0)
    product = 1.0
    for size in sizes:
        product *= 1 - size
    assert float(grad) == pytest.approx(product, rel=1e-12)


# Time constants over the whole range of the cell, and spans of one and of two units of time.
SUITE = [
    (seed, tau, span)
    for seed in range(4)
    for tau in ((0.1, 5.0), (0.1, 1.0), (0.5, 1.5))
    for span in (1.0, 2.0)
]


@cache
def solved(seed: int, tau: tuple[float, float], end: float) -> tuple[LiquidField, Tensor]:
    """A liquid field, and where it leads from rest."""
    field = liquid_field(seed=seed, tau=tau)
    return field, reference(field, torch.zeros_like(field.drive), (0.0, end))


def suite_errors(
    steps: int, suite: list[tuple[int, tuple[float, float], float]]
) -> tuple[list[float], list[float]]:
    """Squared endpoint errors of adaptive and of uniform Euler."""
    adaptive, uniform = [], []
    for seed, tau, end in suite:
        field, exact = solved(seed, tau, end)
        y0 = torch.zeros_like(field.drive)
        for rule, errors in ((GradientScaled(), adaptive), (Uniform(), uniform)):
            y = Euler(steps=steps, step_size=rule).solve(field, y0, (0.0, end)).y
            errors.append(float((y - exact).square().mean()))
    return adaptive, uniform


def to_target(target: float, tau: float, dtype: torch.dtype = torch.float64) -> SemilinearField:
    return SemilinearField(lambda t, y: torch.full_like(y, target), torch.tensor(tau, dtype=dtype))


@pytest.mark.parametrize("span", [0.5, 8.0, 60.0, 1e6])
def test_stays_bounded_over_any_time_span_where_equal_steps_grow(span: float) -> None:
    field = liquid_field(seed=0, tau=(0.1, 5.0))
    y0 = torch.zeros_like(field.drive)
    y = Euler(steps=5).solve(field, y0, (0.0, span)).y
    assert y.abs().max() <= 1 + 1e-14
    if span > 5:  # tau is at most 5 there
        assert Euler(step_size=Uniform(5)).solve(field, y0, (0.0, span)).y.abs().max() > 10


@pytest.mark.parametrize("gain", [None, 3.0])
def test_a_step_is_eulers_own_up_to_tau_and_ends_at_the_target_beyond(gain: float | None) -> None:
    y0 = torch.full((2, 3), -0.25, dtype=torch.float64)
    for dt in (0.5, 2.0, 2.5, 40.0):
        field = to_target(0.75, 2.0)
        if gain is not None:
            both = torch.full_like(y0, 0.75), torch.full_like(y0, gain)
            field = QuasilinearField(lambda t, y, both=both: both, 1 / (2.0 * gain))
        expected = -0.25 + min(dt / 2.0, 1.0)
        y = Euler(steps=1).solve(field, y0, (0.0, dt)).y
        torch.testing.assert_close(y, torch.full_like(y, expected), rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradient_of_a_bounded_step_is_eulers_up_to_tau_and_none_to_it_beyond(
    dtype: torch.dtype,
) -> None:
    taus = torch.tensor([[0.5, 1.0, 1.25]], dtype=dtype, requires_grad=True)  # dt = 1
    y0 = torch.zeros(1, 3, dtype=dtype, requires_grad=True)
    by_autograd = SemilinearField(lambda t, y: torch.ones_like(y), taus)
    Euler(steps=1).solve(by_autograd, y0).y.sum().backward()
    # y1 = y0 + min(1 / tau, 1) (1 - y0)
    expected = torch.tensor([[0.0, -1.0, -1 / 1.25**2]], dtype=dtype)
    torch.testing.assert_close(taus.grad, expected)
    torch.testing.assert_close(y0.grad, torch.tensor([[0.0, 0.0, 1 - 1 / 1.25]], dtype=dtype))
    # By hand: a target of 1 is tanh of much.
    rate = taus.detach().reciprocal().requires_grad_()
    drive = torch.full((1, 3), 20.0, dtype=dtype)
    by_hand = LiquidField(torch.zeros(3, 3, dtype=dtype), drive, rate)
    y = Euler(steps=1).solve(by_hand, y0.detach()).y
    assert is_taped(y)
    y.sum().backward()
    torch.testing.assert_close(rate.grad, torch.tensor([[0.0, 1.0, 1.0]], dtype=dtype))


@pytest.mark.parametrize("steps", [3, 5, 7])
def test_beats_uniform_steps_over_the_liquid_fields(steps: int) -> None:
    adaptive, uniform = suite_errors(steps, SUITE)
    assert sum(adaptive) < 0.9 * sum(uniform)


@pytest.mark.parametrize("steps", [3, 5, 7])
def test_is_no_worse_than_uniform_steps_where_those_are_optimal(steps: int) -> None:
    # Where dt < tau equal steps are the best there are to first order (see GradientScaled).
    mild = [(seed, tau, end) for seed, tau, end in SUITE if end / steps < tau[0]]
    assert mild
    adaptive, uniform = suite_errors(steps, mild)
    assert sum(adaptive) < sum(uniform)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"sharpness": -1.0}, "sharpness"), ({"relax": 1.0}, "relax"), ({"cap": 0.0}, "cap")],
)
def test_bad_options(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GradientScaled(**options)
