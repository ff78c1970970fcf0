"""Solvers beside what their conformance suite checks: counts, liquid fields, names, options."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import solvers
from solvers import NON_FINITE, SUCCESS, Euler, SemilinearField, SolverError, TorchDiffEq
from tests.solvers.fields import liquid_field

SEMILINEAR = {
    "exponential_euler",
    "semi_implicit_euler",
    "etdrk2",
    "etdrk4",
}
ALL = [*solvers.names(), "torchdiffeq:bosh3"]
# Solved by other paths than a plain field's: relaxations, a selectable field.
LIQUID = ["euler", "uniform_euler", "heun", "exponential_euler", "etdrk2", "tsit5"]
STAGES = {
    "midpoint": 2,
    "heun": 2,
    "ralston": 2,
    "rk4": 4,
    "classic_rk4": 4,
    "etdrk2": 2,
    "etdrk4": 4,
}


@pytest.mark.parametrize("name", ALL)
def test_statistics(name: str) -> None:
    calls = 0

    def target(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.cos(t).to(y.dtype).expand_as(y)

    field = SemilinearField(target, 0.5)
    stats = solvers.get(name).solve(field, torch.ones(3, 2, dtype=torch.float64)).stats
    nfe = torch.as_tensor(stats.nfe)  # of each sample, where control is per sample
    assert nfe.max() == calls
    if solvers.options(name).get("steps"):
        assert stats.nfe == 5 * STAGES.get(name, 1)
        assert stats.accepted == 5
    assert torch.as_tensor(stats.rejected).min() >= 0


@pytest.mark.parametrize("name", LIQUID)
@pytest.mark.parametrize("batch", [1, 5])
def test_a_sample_does_not_depend_on_its_batch(name: str, batch: int) -> None:
    field = liquid_field(seed=1, batch=16, hidden=16, tau=(0.1, 5.0))
    y0 = torch.linspace(-1, 1, 256, dtype=torch.float64).view(16, 16)
    whole = solvers.get(name).solve(field, y0).y
    part = type(field)(field.recurrent, field.drive[:batch], field.rate[:batch])
    alone = solvers.get(name).solve(part, y0[:batch]).y
    torch.testing.assert_close(alone, whole[:batch], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", LIQUID)
def test_permuting_the_batch_permutes_the_result(name: str) -> None:
    field = liquid_field(seed=2, batch=8, hidden=8, tau=(0.1, 5.0))
    y0 = torch.linspace(-1, 1, 64, dtype=torch.float64).view(8, 8)
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    mixed = type(field)(field.recurrent, field.drive[order], field.rate[order])
    solver = solvers.get(name)
    expected = solver.solve(field, y0).y[order]
    torch.testing.assert_close(solver.solve(mixed, y0[order]).y, expected, rtol=1e-13, atol=1e-13)


def explode_second(t: Tensor, y: Tensor) -> Tensor:
    """Fine for all samples but the second, which turns NaN once it has moved."""
    slope = -y
    return torch.where((torch.arange(len(y)) == 1)[:, None] & (y < 0.9), math.nan, slope)


def test_a_failed_sample_keeps_its_last_finite_state() -> None:
    solution = solvers.get("uniform_euler", steps=5).solve(
        explode_second, torch.ones(3, 1), throw=False
    )
    torch.testing.assert_close(solution.y[1], torch.tensor([0.8]))


def test_torchdiffeq_gives_back_y0_of_a_failed_sample() -> None:
    solution = TorchDiffEq("rk4").solve(explode_second, torch.ones(3, 1), throw=False)
    assert solution.status.tolist() == [SUCCESS, NON_FINITE, SUCCESS]
    assert solution.y[1] == 1.0


def test_large_finite_states_are_no_failure() -> None:
    y0 = torch.full((2, 64), 3e38)  # their sum overflows
    assert solvers.get("heun").solve(lambda t, y: 0 * y, y0).status.tolist() == [SUCCESS] * 2


def test_torchdiffeq_failures_become_statuses() -> None:
    solver = TorchDiffEq("dopri5", max_steps=2)

    def wild(t: Tensor, y: Tensor) -> Tensor:
        return 50 * y * torch.sin(100 * t)

    with pytest.raises(
        SolverError, match=r"2 of 2 samples \(0, 1\) reached the largest number of steps"
    ):
        solver.solve(wild, torch.ones(2, 1))
    assert solver.solve(wild, torch.ones(2, 1), throw=False).status.tolist() == [1, 1]
    with pytest.raises(SolverError, match="NaN"):
        TorchDiffEq("rk4").solve(lambda t, y: y * math.nan, torch.ones(2, 1))
    with pytest.raises(SolverError, match=r"NaN|step smaller"):
        TorchDiffEq("dopri5").solve(lambda t, y: y * math.nan, torch.ones(2, 1))


@pytest.mark.parametrize("name", ["euler", "classic_rk4", "tsit5", "rk4", "dopri5"])
def test_bad_fields(name: str) -> None:
    solver, y0 = solvers.get(name), torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"\(2, 3\) torch.float32; it returned \(3,\)"):
        solver.solve(lambda t, y: y[0], y0)
    with pytest.raises(ValueError, match=r"returned \(2, 3\) torch.float64"):
        solver.solve(lambda t, y: y.double(), y0)
    with pytest.raises(ValueError, match="must return a tensor, not float"):
        solver.solve(lambda t, y: 1.0, y0)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="field must be callable"):
        solver.solve(3, y0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(SEMILINEAR))
def test_semilinear_methods_say_what_they_need(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} needs a Semi"):
        solvers.get(name).solve(lambda t, y: -y, torch.ones(2, 3))


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan, math.inf])
def test_time_constants_must_be_positive(tau: float) -> None:
    with pytest.raises(ValueError, match="tau must be positive"):
        solvers.SemilinearField(lambda t, y: y, tau)


def test_unknown_names_and_options_list_what_there_is() -> None:
    with pytest.raises(
        ValueError, match=r"unknown solver 'eulr' \(did you mean 'euler'\?\); choose one of euler"
    ):
        solvers.get("eulr")
    with pytest.raises(ValueError, match="takes no option 'step'; it takes steps=5"):
        solvers.get("heun", step=3)
    with pytest.raises(ValueError, match="no method 'foo'; it has adaptive_heun"):
        solvers.get("torchdiffeq:foo")
    with pytest.raises(ValueError, match="takes no option 'rtol'; it takes steps"):
        solvers.get("torchdiffeq:heun3", rtol=1e-3)


@pytest.mark.parametrize("steps", [0, -1, 2.5, "3", True])
def test_steps_must_be_a_positive_whole_number(steps: object) -> None:
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1"):
        Euler(steps=steps)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1"):
        TorchDiffEq("rk4", steps=steps)  # type: ignore[arg-type]


@pytest.mark.parametrize("tolerance", [0.0, -1e-3, math.nan, math.inf])
def test_tolerances_must_be_positive(tolerance: float) -> None:
    with pytest.raises(ValueError, match="rtol must be a positive finite number"):
        TorchDiffEq("dopri5", rtol=tolerance)
    with pytest.raises(ValueError, match="atol must be a positive finite number"):
        solvers.get("dopri5", atol=tolerance)


def test_with_steps_changes_budgets_and_leaves_tolerances_alone() -> None:
    assert solvers.get("heun").with_steps(9) == solvers.get("heun", steps=9)
    assert solvers.get("rk4").with_steps(9) == solvers.get("rk4", steps=9)
    dopri5 = solvers.get("dopri5")
    assert dopri5.with_steps(9) is dopri5
    with pytest.raises(ValueError, match="steps"):
        dopri5.with_steps(0)


def test_torchdiffeq_never_uses_float64_for_float32_states() -> None:
    seen = set()

    def field(t: Tensor, y: Tensor) -> Tensor:
        seen.update({t.dtype, y.dtype})
        return -y

    for method in ("dopri5", "rk4", "bosh3", "adaptive_heun"):
        TorchDiffEq(method).solve(field, torch.ones(2, 1), t_eval=[0.5])
    assert seen == {torch.float32}


def test_fixed_grids_take_their_steps_on_spans_that_do_not_divide() -> None:
    for steps in (3, 7, 11):
        for span in ((0.0, 0.7), (0.1, 1.3), (-1 / 3, 1e3)):
            solver = TorchDiffEq("rk4", steps=steps)
            assert solver.solve(lambda t, y: 0 * y, torch.ones(1, 1), span).stats.nfe == 4 * steps
