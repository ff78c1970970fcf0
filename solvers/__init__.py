"""ODE solving for neural networks: one solver value, injected wherever dynamics are integrated.

>>> import torch, solvers
>>> solution = solvers.Heun(steps=20).solve(lambda t, y: -y, torch.ones(4, 3))
>>> solution.stats.nfe
40
"""

from solvers.catalogue import (
    ETDRK2,
    ETDRK4,
    Bosh3,
    ClassicRK4,
    DormandPrince,
    Euler,
    ExponentialEuler,
    Heun,
    HeunEuler,
    Midpoint,
    Ralston,
    Rodas5P,
    Rosenbrock23,
    SemiImplicitEuler,
    Tsit5,
)
from solvers.drop_in.odeint import odeint, odeint_adjoint, odeint_event
from solvers.fields.base import QuasilinearField, RelaxationField, SemilinearField, VectorField
from solvers.fields.batch_parts import ParameterisedField, SelectableField
from solvers.fields.derivatives import Pullback, PullbackFunction
from solvers.fields.jacobians import JacobianField
from solvers.gradients.adjoint import BacksolveAdjoint
from solvers.gradients.hand_written import HandWritten
from solvers.gradients.modes import Backpropagation, Checkpointing, GradientMode
from solvers.learned.methods import LearnedMethod
from solvers.learned.recording import Recorder
from solvers.learned.solver import LearnedSolver
from solvers.learned.training import relative_errors, train_solver
from solvers.loop.events import Event
from solvers.loop.problem import Problem
from solvers.methods.arithmetic import Increment
from solvers.methods.base import BoundMethod, Method, StepResult
from solvers.methods.exponential import ExponentialRungeKutta
from solvers.methods.exponential_tableaus import ExponentialTableau
from solvers.methods.relaxation import Relaxation
from solvers.methods.rosenbrock import Rosenbrock
from solvers.methods.rosenbrock_tableaus import RosenbrockTableau
from solvers.methods.runge_kutta import RungeKutta
from solvers.methods.semilinear import SemilinearMethod
from solvers.methods.tableaus import ButcherTableau
from solvers.native import NativeSolver
from solvers.path import SolutionPath
from solvers.registry import get, names, options, register
from solvers.solution import (
    MAX_STEPS,
    NON_FINITE,
    STEP_UNDERFLOW,
    SUCCESS,
    Crossings,
    Solution,
    SolverError,
    Stats,
    Status,
)
from solvers.solver import Solver
from solvers.step_size.pid import PID, ErrorControl
from solvers.step_size.rules import (
    Budget,
    BudgetRule,
    GradientScaled,
    Judgement,
    Span,
    Start,
    StepSizeRule,
    Uniform,
)
from solvers.torchdiffeq_adapter import TorchDiffEq

__all__ = [
    "ETDRK2",
    "ETDRK4",
    "MAX_STEPS",
    "NON_FINITE",
    "PID",
    "STEP_UNDERFLOW",
    "SUCCESS",
    "Backpropagation",
    "BacksolveAdjoint",
    "Bosh3",
    "BoundMethod",
    "Budget",
    "BudgetRule",
    "ButcherTableau",
    "Checkpointing",
    "ClassicRK4",
    "Crossings",
    "DormandPrince",
    "ErrorControl",
    "Euler",
    "Event",
    "ExponentialEuler",
    "ExponentialRungeKutta",
    "ExponentialTableau",
    "GradientMode",
    "GradientScaled",
    "HandWritten",
    "Heun",
    "HeunEuler",
    "Increment",
    "JacobianField",
    "Judgement",
    "LearnedMethod",
    "LearnedSolver",
    "Method",
    "Midpoint",
    "NativeSolver",
    "ParameterisedField",
    "Problem",
    "Pullback",
    "PullbackFunction",
    "QuasilinearField",
    "Ralston",
    "Recorder",
    "Relaxation",
    "RelaxationField",
    "Rodas5P",
    "Rosenbrock",
    "Rosenbrock23",
    "RosenbrockTableau",
    "RungeKutta",
    "SelectableField",
    "SemiImplicitEuler",
    "SemilinearField",
    "SemilinearMethod",
    "Solution",
    "SolutionPath",
    "Solver",
    "SolverError",
    "Span",
    "Start",
    "Stats",
    "Status",
    "StepResult",
    "StepSizeRule",
    "TorchDiffEq",
    "Tsit5",
    "Uniform",
    "VectorField",
    "get",
    "names",
    "odeint",
    "odeint_adjoint",
    "odeint_event",
    "options",
    "register",
    "relative_errors",
    "train_solver",
]
