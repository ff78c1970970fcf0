"""ODE solving for neural networks: one solver value, injected wherever dynamics are integrated.

>>> import torch, solvers
>>> solution = solvers.Heun(steps=20).solve(lambda t, y: -y, torch.ones(4, 3))
>>> solution.stats.nfe
40
"""

from solvers.errors import SolverError
from solvers.fields import PullbackField, SemilinearField, TargetPullback, VectorField
from solvers.fixed import (
    BudgetSolver,
    Euler,
    ExponentialEuler,
    Heun,
    Midpoint,
    SemiImplicitEuler,
)
from solvers.methods import Method, Relaxation, RungeKutta
from solvers.registry import get, names, options
from solvers.solution import (
    MAX_STEPS,
    NON_FINITE,
    STEP_UNDERFLOW,
    SUCCESS,
    Solution,
    Stats,
    Status,
)
from solvers.solver import Solver
from solvers.step_size import GradientScaled, StepSizeRule, Uniform
from solvers.tableau import ButcherTableau
from solvers.torchdiffeq_adapter import TorchDiffEq

__all__ = [
    "MAX_STEPS",
    "NON_FINITE",
    "STEP_UNDERFLOW",
    "SUCCESS",
    "BudgetSolver",
    "ButcherTableau",
    "Euler",
    "ExponentialEuler",
    "GradientScaled",
    "Heun",
    "Method",
    "Midpoint",
    "PullbackField",
    "Relaxation",
    "RungeKutta",
    "SemiImplicitEuler",
    "SemilinearField",
    "Solution",
    "Solver",
    "SolverError",
    "Stats",
    "Status",
    "StepSizeRule",
    "TargetPullback",
    "TorchDiffEq",
    "Uniform",
    "VectorField",
    "get",
    "names",
    "options",
]
