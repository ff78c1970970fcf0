"""Rosenbrock methods as data.

Hairer & Wanner, Solving Ordinary Differential Equations II, section IV.7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from solvers.methods.tableaus import Tableau

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class RosenbrockTableau(Tableau[float]):
    """Coefficients of a Rosenbrock method with s stages, in the form without products by J.

    (I/(dt gamma) - J) u_i = f(t + c_i dt, y + sum_j a_ij u_j) + sum_j (coupling_ij / dt) u_j
                             + time_i dt df/dt,
    y1 = y + sum_j b_j u_j,  J = df/dy and df/dt at (t, y).

    What is not named here is as of :class:`solvers.methods.tableaus.Tableau`, where ``b`` and
    ``embedded`` are the weights of the u_j.

    Args:
        gamma: of the diagonal, positive.
        coupling: rows 2 to s of the strictly lower triangle.
        time: the weights of df/dt.
        interpolant: coefficients p_ij of the dense output,
            y(t + theta dt) = y + sum_i u_i sum_j p_ij theta^(j+1).

    Raises:
        ValueError: where the shapes do not fit, a node or a weight of df/dt is not the sum of its
            row, the weights are not of order 1 (2 where ``order`` is more), or the interpolant
            does not end at y1.
    """

    gamma: float
    coupling: Rows
    time: tuple[float, ...]
    interpolant: Rows

    def __post_init__(self) -> None:
        super().__post_init__()
        stages = self.stages
        shapes = [len(row) for row in self.coupling] == list(range(1, stages))
        if not shapes or len(self.time) != stages or len(self.interpolant) != stages:
            raise ValueError(
                f"coupling, time and interpolant do not belong to a method of {stages} stages"
            )
        if not self.gamma > 0:
            raise ValueError(f"gamma must be positive, not {self.gamma}")
        sums = self._sums()  # of the rows of Gamma, u = dt Gamma k: what time must be
        for row, node in zip(((), *self.a), self.c, strict=True):
            if not _near(_dot(row, sums), node):
                raise ValueError(f"row {row} must lead to its node {node}, not {_dot(row, sums)}")
        if not all(map(_near, sums, self.time)):
            raise ValueError(f"time must be {sums}, not {self.time}")
        for name, weights in (("b", self.b), ("embedded", self.embedded)):
            if weights is not None and not _near(_dot(weights, sums), 1.0):
                raise ValueError(f"the weights {name} must be consistent: {_dot(weights, sums)}")
        if not all(_near(sum(row), b) for row, b in zip(self.interpolant, self.b, strict=True)):
            raise ValueError("the rows of the interpolant must sum to the weights b")

    def _sums(self) -> list[float]:
        """The sums of the rows of Gamma = (diag(1/gamma) - coupling)^-1: of u where J and t are 0
        and f = 1, for dt = 1."""
        found: list[float] = []
        for row in ((), *self.coupling):
            found.append(self.gamma * (1.0 + _dot(row, found)))
        return found

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last evaluation is at y1, and so the first of the next step."""
        return self.b[-1] == 0.0 and self.a[-1] == self.b[:-1] and self.c[-1] == 1.0

    @property
    def error_weights(self) -> tuple[float, ...]:
        """b - embedded: the weights of the error estimate; none where it has no estimate."""
        if self.embedded is None:
            return ()
        return tuple(b - low for b, low in zip(self.b, self.embedded, strict=True))


def _dot(weights: Sequence[float], values: Sequence[float]) -> float:
    return math.fsum(w * x for w, x in zip(weights, values, strict=False))


def _near(found: float, expected: float) -> bool:
    return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9)


def _ode23s() -> RosenbrockTableau:
    d, e = 1 / (2 + math.sqrt(2)), 6 + math.sqrt(2)
    return RosenbrockTableau(
        a=((1 / (2 * d),), (1 / d, 1 / d)),
        b=(1 / d, 1 / d, 0.0),
        c=(0.0, 0.5, 1.0),
        order=2,
        embedded=(1 / d - 1 / (6 * d), 1 / d - (e - 2) / (6 * d), -1 / (6 * d)),
        embedded_order=3,
        gamma=d,
        coupling=((-1 / d,), (-2 / d, -e / d)),
        time=(d, 0.0, -d),
        interpolant=((1 / d, 0.0), (-2 / (1 - 2 * d), 1 / (d * (1 - 2 * d))), (0.0, 0.0)),
    )


# Shampine & Reichelt 1997, The MATLAB ODE suite, section 3: the modified pair ode23s. Its k_i are
# dt k1 = u1/d, dt k2 = (u1 + u2)/d. It is a W-formula: of order 2 whatever J is.
ROSENBROCK23 = _ode23s()


def _rodas5p() -> RosenbrockTableau:
    a: Rows = (
        (3.0,),
        (2.849394379747939, 0.45842242204463923),
        (-6.954028509809101, 2.489845061869568, -10.358996098473584),
        (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
        (
            -7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256,
            0.030198172008377946,
        ),
    )  # fmt: skip
    # The last two stages start where the one before them ended.
    sixth, seventh = (*a[4], 1.0), (*a[4], 1.0, 1.0)
    b = (*seventh, 1.0)
    # y + theta (y1 - y) + theta (1 - theta) sum_i u_i (bent_1i + theta bent_2i + theta^2 bent_3i).
    bent = (
        (
            25.948786856663858, -2.5579724845846235, 10.433815404888879, -2.3679251022685204,
            0.524948541321073, 1.1241088310450404, 0.4272876194431874, -0.17202221070155493,
        ),
        (
            -9.91568850695171, -0.9689944594115154, 3.0438037242978453, -24.495224566215796,
            20.176138334709044, 15.98066361424651, -6.789040303419874, -6.710236069923372,
        ),
        (
            11.419903575922262, 2.8879645146136994, 72.92137995996029, 80.12511834622643,
            -52.072871366152654, -59.78993625266729, -0.15582684282751913, 4.883087185713722,
        ),
    )  # fmt: skip
    return RosenbrockTableau(
        a=(*a, sixth, seventh),
        b=b,
        c=(
            0.0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664,
            1.0, 1.0, 1.0,
        ),
        order=5,
        embedded=(*seventh, 0.0),
        embedded_order=4,
        gamma=0.21193756319429014,
        coupling=(
            (-14.155112264123755,),
            (-17.97296035885952, -2.859693295451294),
            (147.12150275711716, -1.41221402718213, 71.68940251302358),
            (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
            (
                24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125,
                -0.6610691825249471,
            ),
            (
                30.91273214028599, -3.1208243349937974, 77.79954646070892, 34.28646028294783,
                -19.097331116725623, -28.087943162872662,
            ),
            (
                37.80277123390563, -3.2571969029072276, 112.26918849496327, 66.9347231244047,
                -40.06618937091002, -54.66780262877968, -9.48861652309627,
            ),
        ),
        time=(
            0.21193756319429014, -0.42387512638858027, -0.3384627126235924, 1.8046452872882734,
            2.325825639765069, 0.0, 0.0, 0.0,
        ),
        interpolant=tuple(
            (weight + x, y - x, z - y, -z) for weight, x, y, z in zip(b, *bent, strict=True)
        ),
    )  # fmt: skip


# Steinebach 2023, Construction of Rosenbrock-Wanner method Rodas5P and numerical benchmarks within
# the Julia differential equations package, BIT 63.
RODAS5P = _rodas5p()
