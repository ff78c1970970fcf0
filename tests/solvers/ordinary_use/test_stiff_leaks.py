"""Solves as people write them who come from other libraries: stiff leaks."""

from __future__ import annotations

import math

import pytest
import torch

from solvers import (
    ETDRK2,
    ETDRK4,
    SemilinearField,
)

F64 = torch.float64


def test_error_control_of_exponential_methods_does_not_suffer_from_stiffness() -> None:
    y0 = torch.zeros(2, 3, dtype=F64)
    counts = []
    for tau in (0.1, 0.01, 0.001, 0.0001, 0.00001):
        field = SemilinearField(lambda t, y: torch.cos(3 * t).expand_as(y), tau)
        solution = ETDRK4(rtol=1e-5, atol=1e-6).solve(field, y0, (0.0, 2.0))
        lag, angle = 3 * tau, 6.0
        exact = (math.cos(angle) + lag * math.sin(angle)) / (1 + lag**2)
        torch.testing.assert_close(solution.y, torch.full_like(y0, exact), rtol=1e-4, atol=1e-4)
        counts.append(int(torch.as_tensor(solution.stats.accepted).max()))
    assert max(counts) < 1200  # an estimate that does not fall asks for many thousands
    assert counts[-1] < 1.1 * counts[-2]
    with pytest.raises(ValueError, match="ETDRK4"):
        ETDRK2(rtol=1e-4)


def test_stiff_moving_targets_are_followed_to_the_tolerance() -> None:
    """Over steps much longer than tau the estimate is of what the last stage misses."""
    y0 = torch.zeros(2, 1, dtype=F64)
    for tau in (1e-2, 1e-4):
        field = SemilinearField(lambda t, y: torch.sin(5 * t).expand_as(y) + 0.1 * y, tau)
        tight = ETDRK4(4000).solve(field, y0, (0.0, 2.0), t_eval=[0.5, 1.0, 1.7]).ys
        for tolerance in (1e-3, 1e-4):
            found = ETDRK4(rtol=tolerance, atol=tolerance).solve(
                field, y0, (0.0, 2.0), t_eval=[0.5, 1.0, 1.7]
            )
            torch.testing.assert_close(found.ys, tight, rtol=0.0, atol=5 * tolerance)
