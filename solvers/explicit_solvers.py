"""Explicit Runge-Kutta solvers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from solvers.methods import tableaus as tableau
from solvers.methods.base import Method, RungeKutta
from solvers.native import NativeSolver
from solvers.step_size.pid import PID
from solvers.step_size.rules import GradientScaled, StepSizeRule


@dataclass(frozen=True)
class Euler(NativeSolver):
    """Explicit Euler, order 1: y1 = y + dt f(t, y).

    The default solver. Its steps adapt to the size of dy/dt (:class:`GradientScaled`); with
    ``step_size=Uniform()`` they are equal. Stable for the leak of a liquid cell where
    dt < 2 tau.
    """

    step_size: StepSizeRule = GradientScaled()
    method: ClassVar[Method] = RungeKutta(tableau.EULER)


@dataclass(frozen=True)
class Midpoint(NativeSolver):
    """Explicit midpoint, order 2, two evaluations a step."""

    method: ClassVar[Method] = RungeKutta(tableau.MIDPOINT)


@dataclass(frozen=True)
class Heun(NativeSolver):
    """Heun's method (explicit trapezoidal rule), order 2, two evaluations a step."""

    method: ClassVar[Method] = RungeKutta(tableau.HEUN)


@dataclass(frozen=True)
class Ralston(NativeSolver):
    """Ralston's method, order 2, two evaluations a step, the smallest error bound of its order."""

    method: ClassVar[Method] = RungeKutta(tableau.RALSTON)


@dataclass(frozen=True)
class RK4(NativeSolver):
    """The classic Runge-Kutta method, order 4, four evaluations a step."""

    method: ClassVar[Method] = RungeKutta(tableau.RK4)


@dataclass(frozen=True)
class HeunEuler(NativeSolver):
    """The pair Heun-Euler 2(1), error-controlled per sample, two evaluations a step."""

    steps: int | None = None
    step_size: StepSizeRule = PID()
    method: ClassVar[Method] = RungeKutta(tableau.HEUN)


@dataclass(frozen=True)
class Bosh3(NativeSolver):
    """Bogacki-Shampine 3(2), error-controlled per sample, three evaluations a step."""

    steps: int | None = None
    step_size: StepSizeRule = PID()
    method: ClassVar[Method] = RungeKutta(tableau.BOSH3)


@dataclass(frozen=True)
class Dopri5(NativeSolver):
    """Dormand-Prince 5(4), error-controlled per sample, six evaluations a step."""

    steps: int | None = None
    step_size: StepSizeRule = PID()
    method: ClassVar[Method] = RungeKutta(tableau.DOPRI5)


@dataclass(frozen=True)
class Tsit5(NativeSolver):
    """Tsitouras 5(4), error-controlled per sample, six evaluations a step."""

    steps: int | None = None
    step_size: StepSizeRule = PID()
    method: ClassVar[Method] = RungeKutta(tableau.TSIT5)
