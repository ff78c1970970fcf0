"""Explicit Runge-Kutta methods as data.

Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, section II.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ButcherTableau:
    """Coefficients of an explicit Runge-Kutta method with s stages.

    k_i = f(t + c_i dt, y + dt sum_j a_ij k_j),  y1 = y + dt sum_i b_i k_i.

    Args:
        a: rows 2 to s of the strictly lower triangle (row i has i - 1 entries).
        b: weights of the stages.
        c: nodes; the first is 0.
        order: order of convergence, as the conformance tests measure it.

    Raises:
        ValueError: where the shapes do not fit, a row does not sum to its node, or the weights
            do not sum to one.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int

    def __post_init__(self) -> None:
        stages = len(self.b)
        if len(self.c) != stages or [len(row) for row in self.a] != list(range(1, stages)):
            raise ValueError(f"a, b and c do not describe one explicit method of {stages} stages")
        if not math.isclose(sum(self.b), 1.0, abs_tol=1e-12):
            raise ValueError(f"the weights b must sum to 1 (consistency), not {sum(self.b)}")
        for row, node in zip(((), *self.a), self.c, strict=True):
            if not math.isclose(sum(row), node, abs_tol=1e-12):
                raise ValueError(f"row {row} must sum to its node {node}")

    @property
    def stages(self) -> int:
        """Evaluations of the field a step."""
        return len(self.b)


EULER = ButcherTableau(a=(), b=(1.0,), c=(0.0,), order=1)
MIDPOINT = ButcherTableau(a=((0.5,),), b=(0.0, 1.0), c=(0.0, 0.5), order=2)
HEUN = ButcherTableau(a=((1.0,),), b=(0.5, 0.5), c=(0.0, 1.0), order=2)
