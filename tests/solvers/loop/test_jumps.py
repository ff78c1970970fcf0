"""Fields that jump at known times: a step ends there, and the solve starts anew."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import solvers
from solvers import (
    PID,
    BacksolveAdjoint,
    Bosh3,
    Checkpointing,
    DormandPrince,
    Event,
    ParameterisedField,
    Recorder,
    SemilinearField,
    TorchDiffEq,
    Tsit5,
)

F64 = torch.float64
ZEROS = torch.zeros(3, 1, dtype=F64)
JUMPS = [5.0, 5.1]


def pulse(t: Tensor, y: Tensor) -> Tensor:
    """y' = -y / 10, and 10 more while 5 < t < 5.1."""
    return -0.1 * y + 10.0 * ((t > 5) & (t < 5.1)).to(y.dtype)


def exact(t: Tensor, size: float = 10.0) -> Tensor:
    """From 0 at t = 0; 0.6096 at t = 10."""
    during = 10 * size * (1 - torch.exp(-0.1 * (t - 5)))
    after = 10 * size * (1 - math.exp(-0.01)) * torch.exp(-0.1 * (t - 5.1))
    return torch.where(t <= 5, 0.0, torch.where(t < 5.1, during, after))


SOLVERS: list[Any] = [
    Tsit5(),
    Bosh3(),
    DormandPrince(step_size=PID(shared=True)),
    DormandPrince(gradient=Checkpointing()),
    DormandPrince(gradient=BacksolveAdjoint()),
    TorchDiffEq("dopri5"),
]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_a_pulse_is_found(solver: solvers.Solver, dtype: torch.dtype) -> None:
    """Which none of the evaluations would meet by itself."""
    y0 = ZEROS.to(dtype).requires_grad_()
    times = [0.0, 4.0, 5.0, 5.05, 5.1, 7.0, 10.0]
    found = solver.solve(pulse, y0, (0.0, 10.0), jump_times=JUMPS, t_eval=times)
    assert float(exact(torch.tensor(10.0, dtype=F64))) == pytest.approx(0.6096, abs=5e-5)
    expected = exact(torch.tensor(times, dtype=F64)).to(dtype)[:, None, None].expand(-1, 3, 1)
    torch.testing.assert_close(found.ys, expected, rtol=0, atol=3e-5)
    torch.testing.assert_close(found.y, expected[-1], rtol=0, atol=3e-5)
    missed = solver.solve(pulse, y0, (0.0, 10.0)).y
    assert float(missed.detach().abs().max()) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16])
@pytest.mark.parametrize("span", [(0.0, 10.0), (10.0, 0.0), (1000.0, -3.0), (5.0, 5.1)])
def test_the_field_is_not_evaluated_at_a_jump(
    span: tuple[float, float], dtype: torch.dtype
) -> None:
    seen = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        seen.append(t.detach().reshape(-1))
        return pulse(t, y)

    for solver in (DormandPrince(), DormandPrince(step_size=PID(shared=True))):
        solver.solve(field, ZEROS.to(dtype), span, jump_times=JUMPS)
    for part in seen:
        assert not bool(torch.isin(part, torch.tensor(JUMPS, dtype=part.dtype)).any())


def test_backwards() -> None:
    end = exact(torch.tensor(10.0, dtype=F64)).expand(2, 1)
    found = DormandPrince(rtol=1e-8, atol=1e-9).solve(
        pulse, end, (10.0, 0.0), jump_times=JUMPS, t_eval=[10.0, 5.1, 5.05, 5.0, 1.0]
    )
    assert found.ys is not None
    expected = exact(torch.tensor([10.0, 5.1, 5.05, 5.0, 1.0], dtype=F64))
    torch.testing.assert_close(found.ys[:, 0, 0], expected, rtol=0, atol=1e-6)


def test_a_semilinear_field() -> None:
    target = ParameterisedField(lambda t, y: 100.0 * ((t > 5) & (t < 5.1)).to(y.dtype) + 0 * y)
    found = solvers.ETDRK4(rtol=1e-6).solve(
        SemilinearField(target, 10.0), ZEROS, (0.0, 10.0), jump_times=JUMPS
    )
    torch.testing.assert_close(found.y, exact(torch.full((3, 1), 10.0, dtype=F64)))


def test_the_path_and_the_steps() -> None:
    field = ParameterisedField(lambda t, y, a: a * pulse(t, y) / a, ZEROS + 1)
    for solver in (Tsit5(rtol=1e-8), DormandPrince(step_size=PID(1e-8, shared=True))):
        found = solver.solve(field, ZEROS, (0.0, 10.0), jump_times=JUMPS, dense=True)
        path = found.path
        assert path is not None
        times = torch.tensor([0.0, 3.0, 5.0, 5.02, 5.1, 6.0, 10.0], dtype=F64)
        expected = exact(times)[:, None, None].expand(-1, 3, 1)
        torch.testing.assert_close(path(times), expected, rtol=0, atol=1e-6)
        for row in path.times.view(-1, path.times.shape[-1]):
            assert bool(torch.isin(torch.tensor([0.0, *JUMPS, 10.0], dtype=F64), row).all())
        steps = found.stats.accepted
        assert path.times.shape[-1] == 1 + (
            int(steps.max()) if isinstance(steps, Tensor) else steps
        )


def test_times_of_each_sample() -> None:
    times = torch.tensor([[0.0, 4.9, 5.0], [5.0, 5.05, 5.2], [9.0, 5.1, 8.0]], dtype=F64)
    found = Tsit5(rtol=1e-8).solve(pulse, ZEROS, (0.0, 10.0), jump_times=JUMPS, t_eval=times)
    torch.testing.assert_close(found.ys, exact(times)[..., None], rtol=0, atol=1e-6)
    asked = torch.tensor([4.0, 5.05, 9.0], dtype=F64, requires_grad=True)
    found = Tsit5(rtol=1e-8).solve(pulse, ZEROS, (0.0, 10.0), jump_times=JUMPS, t_eval=asked)
    assert found.ys is not None
    (ours,) = torch.autograd.grad(found.ys.sum(), asked)
    (theirs,) = torch.autograd.grad(3 * exact(asked).sum(), asked)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "gradient", [solvers.Backpropagation(), Checkpointing(), BacksolveAdjoint()], ids=repr
)
def test_gradients(gradient: solvers.GradientMode) -> None:
    size = torch.tensor(10.0, dtype=F64, requires_grad=True)
    y0 = ZEROS.clone().requires_grad_()

    def field(t: Tensor, y: Tensor) -> Tensor:
        return -0.1 * y + size * ((t > 5) & (t < 5.1)).to(y.dtype)

    solver = DormandPrince(rtol=1e-9, atol=1e-9, gradient=gradient)
    found = solver.solve(field, y0, (0.0, 10.0), jump_times=JUMPS)
    ours = torch.autograd.grad(found.y.sum(), (size, y0))
    last = exact(torch.tensor(10.0, dtype=F64), 1.0)
    torch.testing.assert_close(ours[0], 3 * last, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours[1], torch.full_like(y0, math.exp(-1.0)), rtol=1e-4, atol=0)


RATES = torch.tensor([[0.2], [1.0], [0.05]], dtype=F64)
below_half = Event(lambda t, y: y[:, 0] - 0.5)


@pytest.mark.parametrize("selectable", [True, False])
def test_samples_that_end_in_an_earlier_part_stay_as_they_are(selectable: bool) -> None:
    """One meets its event before the jump, one after it, one never; from 1, exp(-r t)."""
    field: Any = ParameterisedField(lambda t, y, r: -r * y, RATES)
    stop = Event(ParameterisedField(below_half.function), terminal=True)  # type: ignore[arg-type]
    high = Event(ParameterisedField(lambda t, y: y[:, 0] - 0.75), terminal=False)
    if not selectable:
        field, stop = (lambda t, y: -RATES * y), below_half
    found = DormandPrince(rtol=1e-8, atol=1e-9).solve(
        field, ZEROS + 1, (0.0, 10.0), jump_times=[2.0, 6.0], event=[high, stop], dense=True,
        t_eval=[1.0, 3.0, 8.0],
    )  # fmt: skip
    times = math.log(2) / RATES[:, 0]
    times = torch.where(times > 10, math.nan, times)
    torch.testing.assert_close(found.event_time, times, rtol=0, atol=1e-6, equal_nan=True)
    assert found.event_index is not None
    assert found.event_index.tolist() == [1, 1, -1]
    assert found.events[0].samples.tolist() == [0, 1, 2]
    torch.testing.assert_close(
        found.events[0].times, -math.log(0.75) / RATES[:, 0], rtol=0, atol=1e-6
    )
    assert found.events[1].samples.tolist() == [0, 1]
    last = torch.where(times.isnan(), torch.exp(-10 * RATES[:, 0]), 0.5)
    torch.testing.assert_close(found.y[:, 0], last, rtol=0, atol=1e-6)
    asked = torch.tensor([1.0, 3.0, 8.0], dtype=F64)[:, None]
    states = torch.where(asked > times, math.nan, torch.exp(-RATES[:, 0] * asked))
    assert found.ys is not None
    torch.testing.assert_close(found.ys[..., 0], states, rtol=0, atol=1e-6, equal_nan=True)
    assert found.path is not None
    torch.testing.assert_close(
        found.path(asked[:, 0])[..., 0], states, rtol=0, atol=1e-6, equal_nan=True
    )
    steps = found.stats.accepted
    assert isinstance(steps, Tensor)
    assert torch.equal((~found.path.times.isnan()).sum(1), steps + 1)


def test_samples_that_fail_in_an_earlier_part() -> None:
    def field(t: Tensor, y: Tensor, bad: Tensor) -> Tensor:
        return torch.where((bad > 0) & (t > 1), math.nan, -y)

    bad = torch.tensor([[0.0], [1.0], [0.0]])
    found = Tsit5().solve(
        ParameterisedField(field, bad), ZEROS + 1, (0.0, 3.0), jump_times=[2.0], throw=False
    )
    assert found.status.tolist() == [0, solvers.NON_FINITE, 0]
    torch.testing.assert_close(
        found.y[[0, 2]], torch.full((2, 1), math.exp(-3.0), dtype=F64), rtol=1e-3, atol=1e-4
    )
    with pytest.raises(solvers.SolverError, match=r"1 of 3 samples \(1\)"):
        Tsit5().solve(ParameterisedField(field, bad), ZEROS + 1, (0.0, 3.0), jump_times=[2.0])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_event_at_a_jump_and_right_after_it_counts_once(sign: float) -> None:
    for place in (2.0, 2.0 + 1e-9, 2.0 - 1e-9):
        event = Event(lambda t, y, p=place: sign * (t.view(-1) - p), terminal=False)
        found = Tsit5().solve(lambda t, y: -y, ZEROS + 1, (0.0, 3.0), jump_times=[2.0], event=event)
        assert found.events[0].times.tolist() == pytest.approx([place] * 3, abs=1e-12)


def test_one_system_and_what_it_counts() -> None:
    count = 0

    def field(t: Tensor, y: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return pulse(t, y)

    y0 = torch.zeros(2, dtype=F64)
    found = DormandPrince().solve(field, y0, (0.0, 10.0), jump_times=torch.tensor(JUMPS, dtype=F64))
    assert found.stats.nfe == count
    torch.testing.assert_close(found.y, exact(torch.full((2,), 10.0, dtype=F64)), rtol=0, atol=1e-4)
    stop = Event(lambda t, y: t - 4.0)
    early = DormandPrince().solve(field, y0 + 1, (0.0, 10.0), jump_times=JUMPS, event=stop)
    assert float(early.event_time) == pytest.approx(4.0)  # type: ignore[arg-type]
    none = DormandPrince().solve(field, torch.ones(0, 2), (0.0, 10.0), jump_times=JUMPS)
    assert none.y.shape == (0, 2)


def test_what_is_taken_and_what_is_refused() -> None:
    plain = Tsit5().solve(pulse, ZEROS, (0.0, 10.0), jump_times=JUMPS)
    for same in ([5.1, 5.0], [5.0, 5.0, 5.1, 5.1], [-1.0, 5.0, 5.1, 10.5]):
        torch.testing.assert_close(
            Tsit5().solve(pulse, ZEROS, (0.0, 10.0), jump_times=same).y, plain.y, rtol=0, atol=0
        )
    none = Tsit5().solve(pulse, ZEROS, (0.0, 10.0), jump_times=[])
    torch.testing.assert_close(none.y, Tsit5().solve(pulse, ZEROS, (0.0, 10.0)).y)
    recorded = Recorder(Tsit5()).solve(pulse, ZEROS, (0.0, 10.0), jump_times=JUMPS)
    torch.testing.assert_close(recorded.y, plain.y)
    for wrong in ([math.nan], [[5.0]], "soon"):
        with pytest.raises(ValueError, match="jump_times must be a list of"):
            Tsit5().solve(pulse, ZEROS, jump_times=wrong)  # type: ignore[arg-type]
    asks = torch.tensor([0.5], requires_grad=True)
    with pytest.raises(ValueError, match="jump_times requires a gradient"):
        Tsit5().solve(pulse, ZEROS, jump_times=asks)
    learned = solvers.LearnedSolver([solvers.LearnedMethod.of("explicit", 3)])
    for solver in (solvers.Heun(4), solvers.Euler(), DormandPrince(5), TorchDiffEq("rk4"), learned):
        with pytest.raises(ValueError, match="jump_times is for solvers that choose the number"):
            solver.solve(pulse, ZEROS, jump_times=[0.5])
