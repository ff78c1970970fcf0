"""The states within a step, asked for in two ways."""

from __future__ import annotations

import pytest
import torch

import solvers
from solvers import Bosh3, DormandPrince, Heun, Rodas5P, Rosenbrock23, Tsit5


@pytest.mark.parametrize("kind", [Bosh3, DormandPrince, Heun, Tsit5, Rosenbrock23, Rodas5P])
def test_a_path_with_its_powers_collected_is_the_same(kind: type[solvers.NativeSolver]) -> None:
    y0 = torch.tensor([[1.0, 0.5], [0.2, -2.0], [0.0, 3.0]], dtype=torch.float64)
    solution = kind().solve(lambda t, y: torch.cos(t) - y**2 * y.sign(), y0, dense=True)
    assert solution.path is not None
    for piece in solution.path.pieces:
        path, quick = piece.path, piece.path.collected()
        for fraction in (0.0, 0.3, 0.75, 1.0):
            theta = torch.full((len(path.y), 1), fraction, dtype=torch.float64)
            torch.testing.assert_close(quick.at(theta), path.at(theta), rtol=0, atol=1e-14)
