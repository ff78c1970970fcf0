"""ODE solving for neural networks: one solver value, injected wherever dynamics are integrated.

>>> import torch, solvers
>>> solution = solvers.Heun(steps=20).solve(lambda t, y: -y, torch.ones(4, 3))
>>> solution.stats.nfe
40
"""

from solvers.backsolve import BacksolveAdjoint
from solvers.errors import SolverError
from solvers.events import Event
from solvers.explicit_solvers import (
    RK4,
    Bosh3,
    Dopri5,
    Euler,
    Heun,
    HeunEuler,
    Midpoint,
    Ralston,
    Tsit5,
)
from solvers.exponential import ExponentialRungeKutta
from solvers.exponential_tableau import ExponentialTableau
from solvers.fields import (
    LeakPullback,
    LeakPullbackField,
    PullbackField,
    QuasilinearField,
    SemilinearField,
    TargetPullback,
    VectorField,
)
from solvers.gradients import Backpropagation, Checkpointing, GradientMode
from solvers.learned import LearnedSolver
from solvers.learned_methods import LearnedMethod
from solvers.learned_training import relative_errors, train_solver
from solvers.methods import Attempt, Method, RungeKutta
from solvers.native import NativeSolver
from solvers.pid import PID
from solvers.recording import RecordedProblem, Recorder
from solvers.registry import get, names, options
from solvers.relaxation import Relaxation
from solvers.rows import ParameterisedField, SelectableField
from solvers.semilinear import SemilinearMethod
from solvers.semilinear_solvers import ETDRK2, ETDRK4, ExponentialEuler, SemiImplicitEuler
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
from solvers.step_size import BudgetRule, GradientScaled, StepSizeRule, Uniform
from solvers.tableau import ButcherTableau
from solvers.torchdiffeq_adapter import TorchDiffEq

__all__ = [
    "ETDRK2",
    "ETDRK4",
    "MAX_STEPS",
    "NON_FINITE",
    "PID",
    "RK4",
    "STEP_UNDERFLOW",
    "SUCCESS",
    "Attempt",
    "Backpropagation",
    "BacksolveAdjoint",
    "Bosh3",
    "BudgetRule",
    "ButcherTableau",
    "Checkpointing",
    "Dopri5",
    "Euler",
    "Event",
    "ExponentialEuler",
    "ExponentialRungeKutta",
    "ExponentialTableau",
    "GradientMode",
    "GradientScaled",
    "Heun",
    "HeunEuler",
    "LeakPullback",
    "LeakPullbackField",
    "LearnedMethod",
    "LearnedSolver",
    "Method",
    "Midpoint",
    "NativeSolver",
    "ParameterisedField",
    "PullbackField",
    "QuasilinearField",
    "Ralston",
    "RecordedProblem",
    "Recorder",
    "Relaxation",
    "RungeKutta",
    "SelectableField",
    "SemiImplicitEuler",
    "SemilinearField",
    "SemilinearMethod",
    "Solution",
    "Solver",
    "SolverError",
    "Stats",
    "Status",
    "StepSizeRule",
    "TargetPullback",
    "TorchDiffEq",
    "Tsit5",
    "Uniform",
    "VectorField",
    "get",
    "names",
    "options",
    "relative_errors",
    "train_solver",
]
