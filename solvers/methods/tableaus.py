"""Explicit Runge-Kutta methods as data.

Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, sections II.1, II.4 and II.6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

Weight = TypeVar("Weight")


@dataclass(frozen=True)
class Tableau(Generic[Weight]):
    """Coefficients of an explicit method with s stages.

    Args:
        a: rows 2 to s of the strictly lower triangle (row i has i - 1 entries).
        b: weights of the stages.
        c: nodes; the first is 0.
        order: order of convergence, as the conformance tests measure it.
        embedded: weights of a second result of a lower order, whose difference from the first
            estimates the local error; None where the method has none.
        embedded_order: order of that result.

    Raises:
        ValueError: where the shapes do not fit, or one of the last two is given alone.
    """

    a: tuple[tuple[Weight, ...], ...]
    b: tuple[Weight, ...]
    c: tuple[float, ...]
    order: int
    embedded: tuple[Weight, ...] | None = None
    embedded_order: int | None = None

    def __post_init__(self) -> None:
        stages = len(self.b)
        if len(self.c) != stages or [len(row) for row in self.a] != list(range(1, stages)):
            raise ValueError(f"a, b and c do not describe one explicit method of {stages} stages")
        if (self.embedded is None) != (self.embedded_order is None):
            raise ValueError("embedded and embedded_order belong together: give both or neither")

    @property
    def stages(self) -> int:
        """Evaluations of the field a step, before any that is shared with the step before."""
        return len(self.b)


@dataclass(frozen=True)
class ButcherTableau(Tableau[float]):
    """Coefficients of an explicit Runge-Kutta method.

    k_i = f(t + c_i dt, y + dt sum_j a_ij k_j),  y1 = y + dt sum_i b_i k_i.

    Args: those of :class:`Tableau`, and
        interpolant: coefficients p_ij of the method's own dense output,
            y(t + theta dt) = y + dt sum_i k_i sum_j p_ij theta^(j+1); None for cubic Hermite.

    Raises:
        ValueError: where the shapes do not fit, a row does not sum to its node, the weights do
            not sum to one, or the interpolant does not end at y1.
    """

    interpolant: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        stages = self.stages
        for row, node in zip(((), *self.a), self.c, strict=True):
            if not math.isclose(sum(row), node, abs_tol=1e-12):
                raise ValueError(f"row {row} must sum to its node {node}")
        for name, weights in (("b", self.b), ("embedded", self.embedded)):
            if weights is not None and not (
                len(weights) == stages and math.isclose(sum(weights), 1.0, abs_tol=1e-12)
            ):
                raise ValueError(
                    f"the {stages} weights {name} must sum to 1 (consistency), not {sum(weights)}"
                )
        if self.interpolant is not None:
            ends = [sum(row) for row in self.interpolant]
            if len(ends) != stages or not all(
                math.isclose(*pair, abs_tol=1e-9) for pair in zip(ends, self.b, strict=True)
            ):
                raise ValueError("the rows of the interpolant must sum to the weights b")

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is the derivative at y1, and so the first of the next step."""
        return len(self.b) > 1 and self.b[-1] == 0.0 and self.a[-1] == self.b[:-1]

    @property
    def error_weights(self) -> tuple[float, ...] | None:
        """b - embedded: the weights of the error estimate."""
        if self.embedded is None:
            return None
        return tuple(b - low for b, low in zip(self.b, self.embedded, strict=True))


EULER = ButcherTableau(a=(), b=(1.0,), c=(0.0,), order=1)
MIDPOINT = ButcherTableau(a=((0.5,),), b=(0.0, 1.0), c=(0.0, 0.5), order=2)
# With explicit Euler embedded: the pair Heun-Euler 2(1).
HEUN = ButcherTableau(
    a=((1.0,),), b=(0.5, 0.5), c=(0.0, 1.0), order=2, embedded=(1.0, 0.0), embedded_order=1
)
# The method of order 2 with the smallest bound on its truncation error (Ralston 1962).
RALSTON = ButcherTableau(
    a=((2 / 3,),), b=(1 / 4, 3 / 4), c=(0.0, 2 / 3), order=2, embedded=(1.0, 0.0), embedded_order=1
)
RK4 = ButcherTableau(
    a=((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    c=(0.0, 0.5, 0.5, 1.0),
    order=4,
)
# Bogacki & Shampine 1989, A 3(2) pair of Runge-Kutta formulas. Its interpolant is cubic Hermite.
BOSH3 = ButcherTableau(
    a=((1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    b=(2 / 9, 1 / 3, 4 / 9, 0.0),
    c=(0.0, 1 / 2, 3 / 4, 1.0),
    order=3,
    embedded=(7 / 24, 1 / 4, 1 / 3, 1 / 8),
    embedded_order=2,
)
# Dormand & Prince 1980, A family of embedded Runge-Kutta formulae; the interpolant of order 4 is
# Shampine's (1986, Some practical Runge-Kutta formulas), as Hairer's DOPRI5 has it.
DOPRI5 = ButcherTableau(
    a=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    order=5,
    embedded=(
        5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40,
    ),
    embedded_order=4,
    interpolant=(
        (1.0, -8048581381 / 2820520608, 8663915743 / 2820520608, -12715105075 / 11282082432),
        (0.0, 0.0, 0.0, 0.0),
        (0.0, 131558114200 / 32700410799, -68118460800 / 10900136933, 87487479700 / 32700410799),
        (0.0, -1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072),
        (
            0.0, 127303824393 / 49829197408, -318862633887 / 49829197408,
            701980252875 / 199316789632,
        ),
        (0.0, -282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844),
        (0.0, 40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423),
    ),
)  # fmt: skip
# Tsitouras 2011, Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying
# assumption; the interpolant of order 4 is that of its section 4.
TSIT5 = ButcherTableau(
    a=(
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (
            5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401,
            -0.028269050394068383,
        ),
        (
            0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742,
            -3.2900695154360807, 2.324710524099774,
        ),
    ),
    b=(
        0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.2900695154360807,
        2.324710524099774, 0.0,
    ),
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    order=5,
    embedded=(
        0.09468075576583946, 0.009183565540343253, 0.4877705284247616, 1.2342975669304789,
        -2.7077123499835256, 1.866628418170587, 1 / 66,
    ),
    embedded_order=4,
    interpolant=(
        (1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216),
        (0.0, 0.1317, -0.2234, 0.1017),
        (0.0, 3.9302962368947516, -5.941033872131505, 2.490627285651253),
        (0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902),
        (0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928),
        (0.0, -27.896526289197286, 65.09189467479368, -34.87065786149661),
        (0.0, 1.5, -4.0, 2.5),
    ),
)  # fmt: skip
