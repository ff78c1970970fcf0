"""States at asked times: exact at both ends, as accurate as the method between, with gradients."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import solvers
from solvers import (
    ETDRK2,
    ETDRK4,
    PID,
    Bosh3,
    Checkpointing,
    ClassicRK4,
    DormandPrince,
    Euler,
    ExponentialEuler,
    Heun,
    HeunEuler,
    NativeSolver,
    Tsit5,
    Uniform,
)
from tests.solvers.fields import Forced, TimeDependent

LOOSE = PID(1e-3, 1e-3)
CONTROLLED = [
    HeunEuler(step_size=LOOSE),
    Bosh3(),
    DormandPrince(),
    Tsit5(),
    ETDRK4(step_size=LOOSE),
]
BUDGETS = [Euler(steps=6), Euler(steps=6, step_size=Uniform()), Heun(steps=6), ClassicRK4(steps=6)]
KEEPERS = [*CONTROLLED, *BUDGETS, ExponentialEuler(steps=6), ETDRK2(steps=6)]


def name_of(solver: NativeSolver) -> str:
    return f"{type(solver).__name__}-{type(solver.step_size).__name__}"


def field_for(solver: NativeSolver) -> Forced | TimeDependent:
    return Forced() if isinstance(solver, ExponentialEuler | ETDRK2 | ETDRK4) else TimeDependent()


def path(solver: NativeSolver, y0: Tensor, t_eval: Any, **more: Any) -> Tensor:
    ys = solver.solve(field_for(solver), y0, t_eval=t_eval, **more).ys
    assert ys is not None
    return ys


# The order of a step's path is that of its error less one: of the method's own polynomial, of the
# cubic Hermite that the others have, and of the line that methods of order 1 have.
PATHS = {DormandPrince: 4, Tsit5: 4, ClassicRK4: 3, Bosh3: 3, Heun: 2, Euler: 1}


@pytest.mark.parametrize(("kind", "order"), PATHS.items(), ids=str)
def test_order_of_the_path_within_one_step(kind: type[NativeSolver], order: int) -> None:
    y0 = torch.tensor([[0.7], [1.3]], dtype=torch.float64)
    thetas = (0.2, 0.45, 0.8)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.cos(t) * y * (2 - y)

    def error(dt: float) -> float:
        times = [theta * dt for theta in thetas]
        exact = [2 / (1 + (2 / y0 - 1) * math.exp(-2 * math.sin(time))) for time in times]
        solver = kind(steps=1, step_size=Uniform())
        ys = solver.solve(field, y0, (0.0, dt), t_eval=times).ys
        return float((ys - torch.stack(exact)).abs().max())

    assert math.log2(error(0.08) / error(0.04)) == pytest.approx(order + 1, abs=0.15)


@pytest.mark.parametrize("solver", KEEPERS, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_both_ends_are_exact(solver: NativeSolver, dtype: torch.dtype) -> None:
    y0 = torch.linspace(0.5, 1.5, 6, dtype=dtype).view(3, 2)
    for times in ([0.0, 1.0], torch.tensor([0.0, 1.0])[:, None].expand(2, 3)):
        solution = solver.solve(field_for(solver), y0, t_eval=times)
        assert solution.ys is not None
        assert solution.ys.dtype == dtype
        assert torch.equal(solution.ys[0], y0)
        tolerance = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(solution.ys[1], solution.y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("solver", KEEPERS, ids=name_of)
def test_asking_for_states_does_not_change_the_result(solver: NativeSolver) -> None:
    y0 = torch.linspace(0.5, 1.5, 6, dtype=torch.float64).view(3, 2)
    plain = solver.solve(field_for(solver), y0)
    dense = solver.solve(field_for(solver), y0, t_eval=[0.3, 0.3001, 0.9])
    torch.testing.assert_close(dense.y, plain.y, rtol=1e-12, atol=1e-13)
    for count in ("accepted", "rejected"):
        assert torch.equal(
            torch.as_tensor(getattr(dense.stats, count)),
            torch.as_tensor(getattr(plain.stats, count)),
        )


@pytest.mark.parametrize("solver", KEEPERS, ids=name_of)
def test_a_time_of_each_sample(solver: NativeSolver) -> None:
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(7, 5, generator=generator, dtype=torch.float64).sort(dim=0).values
    times[0, 1], times[-1, 3] = 0.0, 1.0
    y0 = torch.linspace(0.5, 1.5, 10, dtype=torch.float64).view(5, 2)
    ys = path(solver, y0, times)
    for row in range(5):
        alone = path(solver, y0[row : row + 1], times[:, row].tolist())
        torch.testing.assert_close(ys[:, row], alone[:, 0], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("solver", CONTROLLED, ids=name_of)
def test_paths_keep_the_tolerance(solver: NativeSolver) -> None:
    solver = replace(solver, step_size=PID(1e-5, 1e-5))
    field, y0 = field_for(solver), torch.linspace(0.5, 1.5, 4, dtype=torch.float64).view(4, 1)
    times = torch.linspace(0, 1, 33, dtype=torch.float64).tolist()
    exact = torch.stack([field.exact(y0, time) for time in times])
    assert float((path(solver, y0, times) - exact).abs().max()) < 2e-4


@pytest.mark.parametrize("solver", KEEPERS, ids=name_of)
def test_close_and_repeated_times(solver: NativeSolver) -> None:
    y0 = torch.linspace(0.5, 1.5, 6, dtype=torch.float64).view(3, 2)
    times = [0.0, 0.0, 1e-12, 0.4, 0.4, 1 - 1e-12, 1.0, 1.0]
    ys = path(solver, y0, times)
    assert torch.isfinite(ys).all()
    assert torch.equal(ys[0], ys[1])
    assert torch.equal(ys[3], ys[4])
    torch.testing.assert_close(ys[2], y0)
    torch.testing.assert_close(ys[5], ys[7])


@pytest.mark.parametrize("solver", KEEPERS, ids=name_of)
@pytest.mark.parametrize("of_each", [False, True])
def test_times_that_float32_rounds_to_t0_have_a_state(solver: NativeSolver, of_each: bool) -> None:
    y0 = torch.linspace(0.5, 1.5, 6).view(3, 2)
    times = torch.tensor([1e-12, 1e-9, 0.5, 1 - 1e-9], dtype=torch.float64)
    ys = path(solver, y0, times[:, None].expand(4, 3) if of_each else times)
    assert torch.isfinite(ys).all()
    torch.testing.assert_close(ys[0], y0)


def test_times_of_float32_may_miss_the_span_by_a_rounding() -> None:
    field, y0 = TimeDependent(), torch.ones(2, 1)
    times = torch.linspace(0.1, 0.7, 13)  # the last in float32 is above 0.7
    assert float(times[-1].double()) != 0.7
    ys = Tsit5().solve(field, y0, (0.1, 0.7), t_eval=times).ys
    assert torch.isfinite(ys).all()
    with pytest.raises(ValueError, match="must lie within the time span"):
        Tsit5().solve(field, y0, (0.1, 0.7), t_eval=[0.71])


@pytest.mark.parametrize("solver", KEEPERS, ids=name_of)
@pytest.mark.parametrize("gradient", [solvers.Backpropagation(), Checkpointing()], ids=repr)
def test_gradients_through_the_path(solver: NativeSolver, gradient: solvers.GradientMode) -> None:
    """Against the closed form, at small steps; the same in every mode, to the last bit."""
    fine = solver.with_steps(100)  # itself, if it has no budget
    fine = replace(fine, gradient=gradient)
    field, times = field_for(solver), [0.0, 0.21, 0.67, 1.0]
    y0 = torch.linspace(0.5, 1.5, 4, dtype=torch.float64).view(4, 1).requires_grad_()
    (found,) = torch.autograd.grad(path(fine, y0, times).square().sum(), y0)
    exact = torch.stack([field.exact(y0, time) for time in times])
    (expected,) = torch.autograd.grad(exact.square().sum(), y0)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-3)
    plain = replace(fine, gradient=solvers.Backpropagation())
    (again,) = torch.autograd.grad(path(plain, y0, times).square().sum(), y0)
    assert torch.equal(found, again)


@pytest.mark.parametrize("solver", CONTROLLED[:4], ids=name_of)
def test_paths_of_samples_that_arrive_early(solver: NativeSolver) -> None:
    """Samples that have arrived are dropped from the evaluations, not from the path."""
    rates = torch.tensor([[0.01], [3.0], [30.0]], dtype=torch.float64)

    def decay(t: Tensor, y: Tensor, rates: Tensor) -> Tensor:
        return -rates * y

    field = solvers.ParameterisedField(decay, rates)
    times = [0.05, 0.31, 0.98]
    solver = replace(solver, step_size=PID())
    solution = solver.solve(field, torch.ones(3, 1, dtype=torch.float64), t_eval=times)
    assert solution.ys is not None
    exact = torch.exp(-rates * torch.tensor(times, dtype=torch.float64)[:, None, None])
    torch.testing.assert_close(solution.ys, exact, rtol=1e-3, atol=1e-4)
    assert len(set(torch.as_tensor(solution.stats.nfe).tolist())) > 1


@pytest.mark.parametrize(
    "solver", [ExponentialEuler(steps=2), ETDRK2(steps=2), ETDRK4(step_size=PID())]
)
def test_paths_of_exponential_methods_follow_a_stiff_leak(solver: NativeSolver) -> None:
    """Their steps are exact here, and as long as they like."""
    field = solvers.SemilinearField(lambda t, y: torch.zeros_like(y), 1 / 30)
    times = [0.05, 0.31]
    ys = solver.solve(field, torch.ones(1, 1, dtype=torch.float64), t_eval=times).ys
    exact = torch.tensor([math.exp(-30 * time) for time in times], dtype=torch.float64)
    torch.testing.assert_close(ys.view(-1), exact, rtol=1e-3, atol=1e-3)  # type: ignore[union-attr]


def burst(t: Tensor, y: Tensor, bad: Tensor) -> Tensor:
    """Fine but for bad samples, which are NaN below 0.7."""
    return torch.where((bad > 0) & (y < 0.7), math.nan, -y)


@pytest.mark.parametrize(
    "solver", [solver for solver in KEEPERS if field_for(solver) == TimeDependent()], ids=name_of
)
@pytest.mark.parametrize("of_each", [False, True])
def test_a_failed_sample_has_a_path_up_to_there(solver: NativeSolver, of_each: bool) -> None:
    times = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=torch.float64)
    t_eval = times[:, None].expand(4, 3) if of_each else times
    y0 = torch.ones(3, 1, dtype=torch.float64)
    field = solvers.ParameterisedField(burst, torch.tensor([[0.0], [1.0], [0.0]]))
    solution = solver.solve(field, y0, t_eval=t_eval, throw=False)
    assert solution.status.tolist() == [0, solvers.NON_FINITE, 0]
    assert solution.ys is not None
    healthy = solver.solve(lambda t, y: -y, y0, t_eval=times).ys
    torch.testing.assert_close(solution.ys[:, [0, 2]], healthy[:, [0, 2]])
    torch.testing.assert_close(solution.ys[:2, 1], healthy[:2, 1], rtol=1e-3, atol=1e-3)
    assert torch.isnan(solution.ys[2:, 1]).all()
