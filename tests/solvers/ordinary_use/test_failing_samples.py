"""Solves as people write them who come from other libraries: samples that fail."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import solvers
from solvers import (
    NON_FINITE,
    PID,
    STEP_UNDERFLOW,
    Bosh3,
    DormandPrince,
    SolverError,
    TorchDiffEq,
    Tsit5,
)

F64 = torch.float64


@pytest.mark.parametrize("solver", [Bosh3(), DormandPrince(), Tsit5()], ids=repr)
@pytest.mark.parametrize("grad", [True, False])
def test_a_bad_sample_beside_a_closure_over_the_batch(
    solver: solvers.NativeSolver, grad: bool
) -> None:
    rate = torch.tensor([[1.0], [2.0], [3.0]], dtype=F64)

    def field(t: Tensor, y: Tensor) -> Tensor:
        slow = rate * y  # only of the whole batch
        return torch.where(t < 0.5, -slow, -2 * slow)

    y0 = torch.tensor([[math.nan], [1.0], [1.0]], dtype=F64, requires_grad=grad)
    solution = solver.solve(field, y0, throw=False)
    assert solution.status.tolist() == [NON_FINITE, 0, 0]
    exact = torch.exp(-1.5 * rate[1:])
    torch.testing.assert_close(solution.y[1:].detach(), exact, rtol=1e-3, atol=1e-4)
    if grad:
        (slope,) = torch.autograd.grad(solution.y[1:].sum(), y0)
        torch.testing.assert_close(slope[1:], exact, rtol=1e-3, atol=1e-4)
    with pytest.raises(SolverError, match=r"1 of 3 samples \(0\) met a NaN") as caught:
        solver.solve(field, y0)
    assert caught.value.solution is not None
    assert caught.value.solution.status.tolist() == [NON_FINITE, 0, 0]


def test_a_blow_up_is_called_one() -> None:
    for y0 in (torch.ones(2, 1, dtype=F64), torch.ones(1, dtype=F64)):
        with pytest.raises(SolverError, match="grows without bound") as caught:
            DormandPrince().solve(lambda t, y: y**2, y0, (0.0, 2.0))
        assert caught.value.solution is not None
        assert set(caught.value.solution.status.view(-1).tolist()) == {STEP_UNDERFLOW}


def test_remedies_exist() -> None:
    with pytest.raises(SolverError) as caught:
        Tsit5(step_size=PID(max_steps=3)).solve(lambda t, y: 100 * torch.cos(90 * t) * y,
                                                torch.ones(2, 1))  # fmt: skip
    for name in ("SemilinearField", "ETDRK4", "ExponentialEuler"):
        assert name in str(caught.value)
        assert hasattr(solvers, name)


def test_torchdiffeq_says_that_one_sample_fails_all() -> None:
    y0 = torch.tensor([[1.0], [math.nan], [2.0]])
    for method in ("dopri5", "rk4"):
        with pytest.raises(SolverError, match="one of them fails all") as caught:
            TorchDiffEq(method).solve(lambda t, y: -y, y0)
        assert caught.value.solution is not None
        assert int(caught.value.solution.status[1]) == NON_FINITE


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "dopri8", "rk4", "explicit_adams"])
def test_torchdiffeq_is_never_evaluated_beyond_the_span(method: str) -> None:
    seen = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        seen.append(float(t))
        return torch.full_like(y, 1e-9)  # which makes the first step tried a long one

    TorchDiffEq(method).solve(field, torch.ones(2, 1, dtype=F64), (0.0, 0.3))
    assert max(seen) <= 0.3
