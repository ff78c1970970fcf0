"""A solver of your own: a method, checked against its order, in a cell and on the command line.

python examples/own_solver.py
cd examples && liquid-ode sample pretrained:improved --solver own_solver:TwoThirds
"""

from __future__ import annotations

import torch
from torch import Tensor

import liquid_ode
import solvers
from solvers import Method, NativeSolver, StepResult, Uniform, VectorField


class TwoThirdsStep(Method):
    """y1 = y + Δt (f(y)/4 + 3 f(y + 2/3 Δt f(y))/4), of order 2: all that a method has to say."""

    order, stages = 2, 2

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: float | Tensor, first: Tensor
    ) -> StepResult:
        second = field(t + 2 / 3 * dt, y + 2 / 3 * dt * first)
        return StepResult(y + dt * (first + 3 * second) / 4)


class TwoThirds(NativeSolver, method=TwoThirdsStep(), step_size=Uniform(5)):
    """The method with five equal steps, if no other number is asked for."""


def error(solver: solvers.Solver) -> float:
    """Of y' = cos(t) y, whose solution is exp(sin t), at t = 1."""
    y0 = torch.ones(1, 1, dtype=torch.float64)
    found = solver.solve(lambda t, y: torch.cos(t) * y, y0, (0.0, 1.0)).y
    return float((found - torch.sin(torch.ones_like(y0)).exp()).abs())


def main() -> int:
    coarse, fine = error(TwoThirds(steps=20)), error(TwoThirds(steps=40))
    print(f"error {coarse:.2e} with 20 steps, {fine:.2e} with 40: {coarse / fine:.2f} times less")
    cell = liquid_ode.LiquidCell(3, 8, solver=TwoThirds(steps=4))
    print(cell)
    print(f"states {tuple(cell(torch.randn(2, 3)).shape)}")
    solvers.register("two_thirds", TwoThirds, replace=True)
    print(f"by name: {solvers.get('two_thirds', steps=7)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
