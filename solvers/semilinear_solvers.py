"""Solvers for semilinear fields, whose leak they treat by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from solvers.methods import exponential_tableaus as exponential_tableau
from solvers.methods.base import Method
from solvers.methods.exponential import ExponentialRungeKutta
from solvers.methods.relaxation import EXPONENTIAL_EULER, SEMI_IMPLICIT_EULER
from solvers.native import NativeSolver


@dataclass(frozen=True)
class ExponentialEuler(NativeSolver):
    """Exponential Euler (ETD1), order 1, for semilinear fields.

    y1 = e^z y + (1 - e^z) target(t, y), z = -dt/tau. One evaluation a step, exact where the
    target is constant, no step limit; with |target| <= 1 it keeps |y| <= max(|y0|, 1).

    Reference: Hochbruck & Ostermann, Exponential integrators, Acta Numerica 2010, eq. 1.7.
    """

    method: ClassVar[Method] = EXPONENTIAL_EULER


@dataclass(frozen=True)
class ETDRK2(NativeSolver):
    """Exponential Runge-Kutta of order 2 (ETD2RK), for semilinear fields, two evaluations a step.

    With a = e^z y + (1 - e^z) u(y), z = -dt/tau and u the target,
    y1 = a + ((1 + z - e^z)/z) (u(a) - u(y)). No step limit from the leak. Its difference from a
    estimates the error, so ``ETDRK2(steps=None, step_size=PID(rtol=1e-4))`` controls its steps
    per sample.

    Reference: Cox & Matthews 2002, Exponential time differencing for stiff systems, eqs. 20-22.
    """

    method: ClassVar[Method] = ExponentialRungeKutta("etdrk2", exponential_tableau.ETD2RK)


@dataclass(frozen=True)
class ETDRK4(NativeSolver):
    """Exponential Runge-Kutta of order 4, for semilinear fields, four evaluations a step.

    No step limit from the leak. With ``ETDRK4(steps=None, step_size=PID(rtol=1e-4))`` an embedded
    result of order 2 controls the steps per sample.

    Reference: Krogstad 2005, Generalized integrating factor methods for stiff PDEs, eq. 51.
    """

    method: ClassVar[Method] = ExponentialRungeKutta("etdrk4", exponential_tableau.ETD4RK)


@dataclass(frozen=True)
class SemiImplicitEuler(NativeSolver):
    """Semi-implicit Euler, order 1, for semilinear fields: the leak implicit, the target not.

    y1 = (y + (dt/tau) target(t, y)) / (1 + dt/tau). One evaluation a step, no step limit.
    It is the fused solver of liquid time-constant networks (Hasani et al. 2021, algorithm 1).
    """

    method: ClassVar[Method] = SEMI_IMPLICIT_EULER
