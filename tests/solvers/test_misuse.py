"""Likely mistakes get an answer that says what to change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import solvers
from liquid_ode.cells import LiquidField
from solvers import (
    ETDRK2,
    ETDRK4,
    PID,
    BacksolveAdjoint,
    DormandPrince,
    Event,
    ExponentialEuler,
    SemilinearField,
    TorchDiffEq,
)

Y0 = torch.ones(4, 3)


def decay(t: Tensor, y: Tensor) -> Tensor:
    return -y


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (lambda t, y: y[:, 0] - 0.5, r"event must be solvers\.Event\(function\)"),
        (Event(lambda t, y: y[:, 0] > 0.5), "a distance with a sign, such as .* not a condition"),
        (Event(lambda t, y: torch.sign(y[:, 0]).long()), r"it returned torch\.int64"),
    ],
)
def test_events(event: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DormandPrince().solve(decay, Y0, event=event)


@pytest.mark.parametrize("solver", [ExponentialEuler(), ETDRK2(), solvers.Heun()], ids=repr)
@pytest.mark.parametrize("shape", [(5,), (4, 3, 1), (2, 4, 3), (3, 3)])
def test_time_constants_of_a_shape_that_does_not_fit(
    solver: solvers.Solver, shape: tuple[int, ...]
) -> None:
    field = SemilinearField(lambda t, y: torch.tanh(y), torch.ones(shape))
    with pytest.raises(ValueError, match=r"tau has shape .* broadcast to .*\(4, 3\)"):
        solver.solve(field, Y0)


@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (4, 1), (4, 3)])
def test_time_constants_of_a_shape_that_fits(shape: tuple[int, ...]) -> None:
    field = SemilinearField(lambda t, y: torch.tanh(y), torch.full(shape, 0.5))
    expected = ETDRK2().solve(SemilinearField(lambda t, y: torch.tanh(y), 0.5), Y0).y
    torch.testing.assert_close(ETDRK2().solve(field, Y0).y, expected)


def test_semilinear_fields_of_the_wrong_things() -> None:
    with pytest.raises(ValueError, match=r"takes \(target, tau\)"):
        SemilinearField(0.3, decay)  # type: ignore[arg-type]
    for tau in ([1.0, 2.0], torch.ones(0, 3), torch.ones(3, dtype=torch.long)):
        with pytest.raises(ValueError, match="tau must be a number or a floating-point tensor"):
            SemilinearField(decay, tau)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="drive and rate must have the same shape"):
        LiquidField(torch.eye(3), torch.ones(4, 3), torch.ones(1, 3))


def test_adjoint_solvers() -> None:
    for solver in ("dopri5", TorchDiffEq("dopri5")):
        with pytest.raises(
            ValueError, match=r"one of this package's own, such as solvers\.DormandPrince"
        ):
            BacksolveAdjoint(solver)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="explicit Runge-Kutta method"):
        BacksolveAdjoint(ETDRK2())
    with pytest.raises(ValueError, match=r"BacksolveAdjoint\(solver=solvers\.DormandPrince\(\)\)"):
        ETDRK2(gradient=BacksolveAdjoint())
    tau = torch.full((4, 3), 0.5, requires_grad=True)
    for name in ("etdrk2", "etdrk4", "exponential_euler", "etdrk2", "heun", "heun_euler"):
        field = SemilinearField(lambda t, y: torch.cos(y), tau)
        y = solvers.get(name, gradient="backsolve").solve(field, Y0).y
        assert torch.autograd.grad(y.sum(), tau)[0].abs().sum() > 0


def test_half_precision_does_not_chase_its_own_rounding() -> None:
    field = SemilinearField(lambda t, y: torch.tanh(3 * y), 0.3)
    y0 = torch.linspace(-1, 1, 12).view(4, 3)
    exact = DormandPrince().solve(field, y0).y
    for kind in (DormandPrince, ETDRK4):
        solution = kind(step_size=PID()).solve(field, y0.bfloat16())
        assert torch.as_tensor(solution.stats.nfe).max() < 200
        torch.testing.assert_close(solution.y.float(), exact, rtol=0.05, atol=0.05)


def test_tolerances_and_steps() -> None:
    with pytest.raises(ValueError, match="rtol must be a positive finite number, not True"):
        PID(rtol=True)
    with pytest.raises(ValueError, match=r"which this one of order 1 does not: take HeunEuler"):
        solvers.Euler(steps=None, step_size=PID())
