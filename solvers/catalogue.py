"""The solvers by name: which method, and by which rule unless told otherwise."""

from __future__ import annotations

from solvers.methods import exponential_tableaus, tableaus
from solvers.methods.exponential import ExponentialRungeKutta
from solvers.methods.relaxation import EXPONENTIAL_EULER, SEMI_IMPLICIT_EULER
from solvers.methods.rosenbrock import Rosenbrock
from solvers.methods.rosenbrock_tableaus import RODAS5P, ROSENBROCK23
from solvers.methods.runge_kutta import RungeKutta
from solvers.native import NativeSolver
from solvers.step_size.pid import PID
from solvers.step_size.rules import GradientScaled


class Euler(NativeSolver, method=RungeKutta(tableaus.EULER), step_size=GradientScaled(5)):
    """Explicit Euler, order 1: y1 = y + dt f(t, y).

    The default solver. Its steps adapt to the size of dy/dt (:class:`GradientScaled`); with
    ``step_size=Uniform(5)`` they are equal, and stable for the leak of a liquid cell where
    dt < 2 tau. With the steps of the default a step towards the target of a relaxation field,
    such as a liquid cell's, ends there at the latest: the state stays bounded over any time span.
    """


class Midpoint(NativeSolver, method=RungeKutta(tableaus.MIDPOINT)):
    """Explicit midpoint, order 2, two evaluations a step."""


class Heun(NativeSolver, method=RungeKutta(tableaus.HEUN)):
    """Heun's method (explicit trapezoidal rule), order 2, two evaluations a step."""


class Ralston(NativeSolver, method=RungeKutta(tableaus.RALSTON)):
    """Ralston's method, order 2, two evaluations a step, the smallest error bound of its order."""


class ClassicRK4(NativeSolver, method=RungeKutta(tableaus.RK4)):
    """The classic Runge-Kutta method, order 4, four evaluations a step."""


class HeunEuler(NativeSolver, method=RungeKutta(tableaus.HEUN), step_size=PID()):
    """The pair Heun-Euler 2(1), error-controlled per sample, two evaluations a step."""


class Bosh3(NativeSolver, method=RungeKutta(tableaus.BOSH3), step_size=PID()):
    """Bogacki-Shampine 3(2), error-controlled per sample, three evaluations a step."""


class DormandPrince(NativeSolver, method=RungeKutta(tableaus.DOPRI5), step_size=PID()):
    """Dormand-Prince 5(4), error-controlled per sample, six evaluations a step."""


class Tsit5(NativeSolver, method=RungeKutta(tableaus.TSIT5), step_size=PID()):
    """Tsitouras 5(4), error-controlled per sample, six evaluations a step."""


class Rosenbrock23(NativeSolver, method=Rosenbrock(ROSENBROCK23), step_size=PID()):
    """Rosenbrock 2(3) for stiff fields of any kind, error-controlled per sample.

    Linearly implicit, L-stable, of order 2: of every step the Jacobian of each sample is made and
    factored once, so that a fast decay does not limit the step. Three evaluations a step, of which
    one is the Jacobian's. See :class:`solvers.Rosenbrock` for what that costs,
    and :class:`solvers.JacobianField` for a Jacobian of one's own.

    It differentiates the field by autograd, in y and in t: write torch.sin(t), not math.sin(t). A
    sample has at most 2048 elements.

    Reference: Shampine & Reichelt 1997, The MATLAB ODE suite, section 3 (ode23s).
    """


class Rodas5P(NativeSolver, method=Rosenbrock(RODAS5P), step_size=PID()):
    """Rosenbrock-Wanner 5(4) for stiff fields of any kind, error-controlled per sample.

    As :class:`Rosenbrock23`, of order 5 and for tight tolerances: nine evaluations a step, of which
    one is the Jacobian's. Its order needs exact derivatives, in the time too.

    Reference: Steinebach 2023, Construction of Rosenbrock-Wanner method Rodas5P and numerical
    benchmarks within the Julia differential equations package.
    """


class ExponentialEuler(NativeSolver, method=EXPONENTIAL_EULER):
    """Exponential Euler (ETD1), order 1, for semilinear fields.

    y1 = e^z y + (1 - e^z) target(t, y), z = -dt/tau. One evaluation a step, exact where the
    target is constant, no step limit; with |target| <= 1 it keeps |y| <= max(|y0|, 1).

    Reference: Hochbruck & Ostermann, Exponential integrators, Acta Numerica 2010, eq. 1.7.
    """


class ETDRK2(NativeSolver, method=ExponentialRungeKutta("etdrk2", exponential_tableaus.ETD2RK)):
    """Exponential Runge-Kutta of order 2 (ETD2RK), for semilinear fields, two evaluations a step.

    With a = e^z y + (1 - e^z) u(y), z = -dt/tau and u the target,
    y1 = a + ((1 + z - e^z)/z) (u(a) - u(y)). No step limit from the leak. It takes a number of
    steps: its difference from a, the one estimate of its error that costs nothing, does not fall
    with tau, as its error does, and asks for far too many steps. For error control take
    :class:`ETDRK4`.

    Reference: Cox & Matthews 2002, Exponential time differencing for stiff systems, eqs. 20-22.
    """


class ETDRK4(NativeSolver, method=ExponentialRungeKutta("etdrk4", exponential_tableaus.ETD4RK)):
    """Exponential Runge-Kutta of order 4, for semilinear fields, four evaluations a step.

    No step limit from the leak. With tolerances, ``ETDRK4(rtol=1e-4)``, an embedded result of
    order 2 controls the steps per sample.

    Reference: Krogstad 2005, Generalized integrating factor methods for stiff PDEs, eq. 51.
    """


class SemiImplicitEuler(NativeSolver, method=SEMI_IMPLICIT_EULER):
    """Semi-implicit Euler, order 1, for semilinear fields: the leak implicit, the target not.

    y1 = (y + (dt/tau) target(t, y)) / (1 + dt/tau). One evaluation a step, no step limit.
    It is the fused solver of liquid time-constant networks (Hasani et al. 2021, algorithm 1).
    """
