"""Explicit exponential Runge-Kutta methods as data.

Hochbruck & Ostermann, Exponential integrators, Acta Numerica 2010, section 2.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from solvers.methods.tableaus import Tableau

Phi = tuple[float, float, float]
"""A weight w = w_1 phi_1 + w_2 phi_2 + w_3 phi_3."""


@dataclass(frozen=True)
class ExponentialTableau(Tableau[Phi]):
    """Coefficients of an explicit exponential Runge-Kutta method for dy/dt = (u(t, y) - y)/tau.

    With r = dt/tau, z = -r and u_j = u(t + c_j dt, Y_j):
    Y_i = e^(c_i z) y + r sum_j a_ij(c_i z) u_j,  y1 = e^z y + r sum_j b_j(z) u_j.

    The arguments are those of :class:`Tableau`; each weight is a combination of phi_1 to phi_3, at
    c_i z in ``a`` and at z in ``b`` and ``embedded``.

    Raises:
        ValueError: where the shapes do not fit, or the weights of a row do not sum to c_i phi_1,
            which makes the method exact for a constant target.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        rows = [*zip(self.a, self.c[1:], strict=True), (self.b, 1.0)]
        rows += [] if self.embedded is None else [(self.embedded, 1.0)]
        for row, node in rows:
            sums = [sum(weights) for weights in zip(*row, strict=True)]
            pairs = zip(sums, (node, 0.0, 0.0), strict=True)
            if not all(math.isclose(*pair, abs_tol=1e-12) for pair in pairs):
                raise ValueError(f"the weights {row} must sum to {node} phi_1, not {sums}")


_NONE: Phi = (0.0, 0.0, 0.0)

# Cox & Matthews 2002, Exponential time differencing for stiff systems, eq. 22. Exponential Euler
# is not embedded: over a step much longer than tau its error is that of a target held still,
# however small that of this method is, so that it would ask for thousands of steps too many.
ETD2RK = ExponentialTableau(
    a=(((1.0, 0.0, 0.0),),),
    b=((1.0, -1.0, 0.0), (0.0, 1.0, 0.0)),
    c=(0.0, 1.0),
    order=2,
)
# Krogstad 2005, Generalized integrating factor methods for stiff PDEs, eq. 51. The embedded
# result leaves out 2 phi_3 of the second difference u_1 - u_2 - u_3 + u_4: over steps much longer
# than tau that difference alone is left of the error, as it is what the last stage misses by.
ETD4RK = ExponentialTableau(
    a=(
        ((0.5, 0.0, 0.0),),
        ((0.5, -1.0, 0.0), (0.0, 1.0, 0.0)),
        ((1.0, -2.0, 0.0), _NONE, (0.0, 2.0, 0.0)),
    ),
    b=((1.0, -3.0, 4.0), (0.0, 2.0, -4.0), (0.0, 2.0, -4.0), (0.0, -1.0, 4.0)),
    c=(0.0, 0.5, 0.5, 1.0),
    order=4,
    embedded=((1.0, -3.0, 2.0), (0.0, 2.0, -2.0), (0.0, 2.0, -2.0), (0.0, -1.0, 2.0)),
    embedded_order=2,
)
