"""ODE solving for neural networks: one solver value, injected wherever dynamics are integrated.

>>> import torch, solvers
>>> solution = solvers.Heun(steps=20).solve(lambda t, y: -y, torch.ones(4, 3))
>>> solution.stats.nfe
40
"""

from solvers.errors import SolverError
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
from solvers.fields.base import (
    LeakPullback,
    LeakPullbackField,
    PullbackField,
    QuasilinearField,
    SemilinearField,
    TargetPullback,
    VectorField,
)
from solvers.fields.batch_parts import ParameterisedField, SelectableField
from solvers.gradients.adjoint import BacksolveAdjoint
from solvers.gradients.modes import Backpropagation, Checkpointing, GradientMode
from solvers.learned.methods import LearnedMethod
from solvers.learned.recording import RecordedProblem, Recorder
from solvers.learned.solver import LearnedSolver
from solvers.learned.training import relative_errors, train_solver
from solvers.loop.events import Event
from solvers.methods.base import Attempt, Method, RungeKutta
from solvers.methods.exponential import ExponentialRungeKutta
from solvers.methods.exponential_tableaus import ExponentialTableau
from solvers.methods.relaxation import Relaxation
from solvers.methods.semilinear import SemilinearMethod
from solvers.methods.tableaus import ButcherTableau
from solvers.native import NativeSolver
from solvers.registry import get, names, options
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
from solvers.step_size.pid import PID
from solvers.step_size.rules import BudgetRule, GradientScaled, StepSizeRule, Uniform
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
