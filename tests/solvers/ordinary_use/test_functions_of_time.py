"""Solves as people write them who come from other libraries: functions of the time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import solvers
from solvers import (
    PID,
    Bosh3,
    DormandPrince,
    Euler,
    Heun,
    TorchDiffEq,
    Tsit5,
    Uniform,
)

F64 = torch.float64


def test_functions_of_a_number() -> None:
    y0 = torch.ones(3, 2, dtype=F64)
    exact = y0 * math.exp(-(1 - math.cos(1)))
    fields = (
        lambda t, y: -math.sin(t) * y,
        lambda t, y: -math.sin(t.item()) * y,
        lambda t, y: -torch.sin(t) * y if t < 2.0 else y,
    )
    for field in fields:
        for solver in (
            Heun(400),
            Euler(step_size=Uniform(20_000)),
            DormandPrince(step_size=PID(1e-8, 1e-8, shared=True)),
            TorchDiffEq("dopri5", rtol=1e-8),
        ):
            torch.testing.assert_close(solver.solve(field, y0).y, exact, rtol=1e-4, atol=1e-4)
        one = DormandPrince(rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(one.solve(field, y0[0]).y, exact[0], rtol=1e-6, atol=1e-6)
        for solver in (DormandPrince(), Euler(5)):
            with pytest.raises(ValueError, match=r"took t for one number.*PID\(shared=True\)"):
                solver.solve(field, y0)


def test_an_error_of_the_field_is_its_own() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("the field's own")

    for solver in (DormandPrince(), Heun(3), TorchDiffEq()):
        with pytest.raises(RuntimeError, match="the field's own"):
            solver.solve(field, torch.ones(2, 2))


@pytest.mark.parametrize("solver", [Bosh3(), DormandPrince(), Tsit5(), TorchDiffEq(), Heun(200)])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_times_far_from_zero(solver: solvers.Solver, dtype: torch.dtype) -> None:
    start = 1.7e9  # seconds since 1970
    for y0 in (torch.ones(2, 3, dtype=dtype), torch.ones(3, dtype=dtype)):
        solution = solver.solve(lambda t, y: -y, y0, (start, start + 1), t_eval=[start + 0.5])
        torch.testing.assert_close(
            solution.y, torch.full_like(y0, math.exp(-1)), rtol=1e-4, atol=0.0
        )
        assert solution.ys is not None
        torch.testing.assert_close(
            solution.ys[0], torch.full_like(y0, math.exp(-0.5)), rtol=1e-4, atol=0.0
        )


def test_a_first_step_over_the_whole_span_is_not_believed() -> None:
    """Bosh3's estimate at dt = tau is exactly 0, and its y1 is 1/3."""
    solution = Bosh3(step_size=PID(first_step=1.0)).solve(lambda t, y: -y, torch.ones(2, 1))
    torch.testing.assert_close(solution.y, torch.full((2, 1), math.exp(-1)), rtol=1e-4, atol=0.0)
