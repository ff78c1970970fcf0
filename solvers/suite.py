"""A small suite of initial value problems with known solutions, to compare solvers on.

>>> from solvers import suite
>>> import solvers
>>> problem = suite.problem("liquid")
>>> solution = solvers.Heun(steps=10).solve(problem.field, problem.y0, problem.span)
>>> problem.error(solution.y) < 1e-2
True
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from solvers.fields.base import SemilinearField, VectorField
from solvers.fields.batch_parts import ParameterisedField
from solvers.torchdiffeq_adapter import TorchDiffEq

BATCH = 64


@dataclass(frozen=True)
class KnownProblem:
    """dy/dt = field(t, y), y(t0) = y0, and what y(t1) is.

    Attributes:
        name: one word.
        about: the equation, in a line.
        field: the vector field; semilinear where exponential methods apply.
        y0: initial state ``(B, ...)``.
        span: (t0, t1).
        reference: y(t1) in float64 on the CPU, of the very numbers that the field holds.
    """

    name: str
    about: str
    field: VectorField
    y0: Tensor
    span: tuple[float, float]
    reference: Tensor

    def error(self, y: Tensor) -> float:
        """Relative error of a final state: RMS(y - reference) / RMS(reference).

        The root mean square is over all elements of all samples. NaN or infinity where the state
        is.

        Raises:
            ValueError: where ``y`` has another shape than the reference.
        """
        if y.shape != self.reference.shape:
            raise ValueError(
                f"the final state of {self.name} has shape {tuple(self.reference.shape)}, "
                f"not {tuple(y.shape)}"
            )
        difference = y.detach().to("cpu", torch.float64) - self.reference
        return float(difference.square().mean().sqrt() / self.reference.square().mean().sqrt())


def tight_solution(field: VectorField, y0: Tensor, span: tuple[float, float]) -> Tensor:
    """y(t1) to about 1e-9, by an eighth-order method that is not one of ours.

    Args:
        field: in float64.
        y0: float64 ``(B, ...)``.
        span: (t0, t1).

    Raises:
        ValueError: where the state is not in float64.
        SolverError: where the field cannot be solved so tightly.
    """
    if y0.dtype != torch.float64:
        raise ValueError(f"a tight solution needs a state in float64, not {y0.dtype}")
    return TorchDiffEq("dopri8", rtol=1e-10, atol=1e-12).solve(field, y0, span).y


def names() -> list[str]:
    """The names that :func:`problem` takes."""
    return list(_RECIPES)


def problem(
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> KnownProblem:
    """One problem of the suite.

    Args:
        name: one of :func:`names`.
        dtype: of the state and of what the field holds.
        device: where they lie; the reference is computed on the CPU.
        seed: draws the initial states and the parameters of each sample.

    Raises:
        ValueError: where the name is unknown.
    """
    if name not in _RECIPES:
        raise ValueError(f"the suite has no problem {name!r}; it has {', '.join(names())}")
    recipe = _RECIPES[name]
    drawn = recipe.draw(torch.Generator().manual_seed(seed))
    # Rounded first, so that the reference is the solution of the numbers that are solved with.
    y0, *parameters = (value.to(dtype) for value in drawn)
    exact = [value.double() for value in (y0, *parameters)]
    if recipe.end is None:
        reference = tight_solution(recipe.field(*exact[1:]), exact[0], recipe.span)
    else:
        reference = recipe.end(*exact)
    field = recipe.field(*(value.to(device) for value in parameters))
    return KnownProblem(name, recipe.about, field, y0.to(device), recipe.span, reference)


def _uniform(generator: Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


def _log_uniform(generator: Generator, low: float, high: float, *shape: int) -> Tensor:
    return _uniform(generator, math.log(low), math.log(high), *shape).exp()


def _normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class _Recipe(NamedTuple):
    """How a problem is made.

    ``draw`` gives the initial state and the parameters, in float64; ``field`` takes the
    parameters, and ``end``, which is y(t1) where that is known exactly, the state too.
    """

    about: str
    span: tuple[float, float]
    draw: Callable[[Generator], Sequence[Tensor]]
    field: Callable[..., VectorField]
    end: Callable[..., Tensor] | None = None


def _liquid_field(recurrent: Tensor, drive: Tensor, tau: Tensor) -> VectorField:
    def target(t: Tensor, y: Tensor, drive: Tensor) -> Tensor:
        return torch.tanh(torch.addmm(drive, y, recurrent.t()))  # (B, H)

    return SemilinearField(ParameterisedField(target, drive), tau)


def _liquid(low: float, high: float, hidden: int = 32) -> _Recipe:
    """A liquid cell at rest that meets an input, as those of an image model do."""
    return _Recipe(
        f"dh/dt = (tanh(W h + x) - h) / tau, tau in [{low:g}, {high:g}]",
        (0.0, 1.0),
        lambda g: (
            torch.zeros(BATCH, hidden, dtype=torch.float64),
            0.8 * torch.linalg.qr(_normal(g, hidden, hidden)).Q,
            _normal(g, BATCH, hidden),
            _log_uniform(g, low, high, BATCH, hidden),
        ),
        _liquid_field,
    )


def _forced_field(tau: Tensor) -> VectorField:
    def target(t: Tensor, y: Tensor) -> Tensor:
        return torch.cos(3 * t).to(y.dtype).expand_as(y)

    return SemilinearField(ParameterisedField(target), tau)


def _forced_end(y0: Tensor, tau: Tensor) -> Tensor:
    # The particular solution is a cosine and a sine; what remains decays.
    lag, scale = 3 * tau, 1 / (1 + (3 * tau).square())
    return scale * (math.cos(6) + lag * math.sin(6)) + (y0 - scale) * (-2 / tau).exp()


def _van_der_pol(t: Tensor, y: Tensor, mu: Tensor) -> Tensor:
    x, v = y.unbind(-1)
    return torch.stack([v, mu * (1 - x.square()) * v - x], -1)


def _lotka_volterra(t: Tensor, y: Tensor, rates: Tensor) -> Tensor:
    growth, hunt, death, feed = rates.unbind(-1)
    prey, hunters = y.unbind(-1)
    met = prey * hunters
    return torch.stack([growth * prey - hunt * met, feed * met - death * hunters], -1)


def _pendulum(t: Tensor, y: Tensor, friction: Tensor) -> Tensor:
    angle, speed = y.unbind(-1)
    return torch.stack([speed, -torch.sin(angle) - friction * speed], -1)


_RECIPES = {
    "liquid": _liquid(0.5, 5.0),
    "stiff_liquid": _liquid(0.1, 5.0),
    "forced": _Recipe(
        "dy/dt = (cos 3t - y) / tau, tau in [0.1, 2], solved exactly",
        (0.0, 2.0),
        lambda g: (_normal(g, BATCH, 8), _log_uniform(g, 0.1, 2.0, BATCH, 8)),
        _forced_field,
        _forced_end,
    ),
    "van_der_pol": _Recipe(
        "x'' = mu (1 - x²) x' - x, mu in [0.1, 3]",
        (0.0, 2.0),
        lambda g: (
            torch.stack([_uniform(g, 1.0, 2.0, BATCH), _uniform(g, -0.5, 0.5, BATCH)], -1),
            _log_uniform(g, 0.1, 3.0, BATCH),
        ),
        partial(ParameterisedField, _van_der_pol),
    ),
    "lotka_volterra": _Recipe(
        "x' = a x - b x y, y' = d x y - c y, each rate in [0.5, 1.5]",
        (0.0, 4.0),
        lambda g: (_uniform(g, 0.5, 2.0, BATCH, 2), _uniform(g, 0.5, 1.5, BATCH, 4)),
        partial(ParameterisedField, _lotka_volterra),
    ),
    "pendulum": _Recipe(
        "a'' = -sin a - c a', c in [0, 0.3]",
        (0.0, 4.0),
        lambda g: (
            torch.stack([_uniform(g, -2.5, 2.5, BATCH), _uniform(g, -1.0, 1.0, BATCH)], -1),
            _uniform(g, 0.0, 0.3, BATCH),
        ),
        partial(ParameterisedField, _pendulum),
    ),
}
