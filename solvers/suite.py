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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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
    return list(_PROBLEMS)


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
    if name not in _PROBLEMS:
        raise ValueError(f"the suite has no problem {name!r}; it has {', '.join(names())}")
    drawn = _PROBLEMS[name](_Draws(seed))
    # Rounded first, so that the reference is the solution of the numbers that are solved with.
    y0, *parameters = (value.to(dtype) for value in (drawn.y0, *drawn.parameters))
    exact = [value.double() for value in (y0, *parameters)]
    if drawn.exact is None:
        reference = tight_solution(drawn.field(*exact[1:]), exact[0], drawn.span)
    else:
        reference = drawn.exact(*exact)
    field = drawn.field(*(value.to(device) for value in parameters))
    return KnownProblem(name, drawn.about, field, y0.to(device), drawn.span, reference)


@dataclass(frozen=True)
class _Drawn:
    """A problem whose numbers are still in float64.

    ``field`` takes the parameters; ``exact`` the initial state and the parameters.
    """

    about: str
    span: tuple[float, float]
    field: Callable[..., VectorField]
    y0: Tensor
    parameters: tuple[Tensor, ...]
    exact: Callable[..., Tensor] | None = None


class _Draws:
    """Random numbers in float64, the same on every machine."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        share = torch.rand(*shape, generator=self._generator, dtype=torch.float64)
        return low + (high - low) * share

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator, dtype=torch.float64)

    def orthogonal(self, size: int, gain: float) -> Tensor:
        return gain * torch.linalg.qr(self.normal(size, size)).Q


def _liquid_cell(draws: _Draws, low: float, high: float) -> _Drawn:
    """A liquid cell at rest that meets an input, as those of an image model do."""
    hidden = 32

    def field(recurrent: Tensor, drive: Tensor, tau: Tensor) -> VectorField:
        def target(t: Tensor, y: Tensor, drive: Tensor) -> Tensor:
            return torch.tanh(torch.addmm(drive, y, recurrent.t()))  # (B, H)

        return SemilinearField(ParameterisedField(target, drive), tau)

    return _Drawn(
        f"dh/dt = (tanh(W h + x) - h) / tau, tau in [{low:g}, {high:g}]",
        (0.0, 1.0),
        field,
        torch.zeros(BATCH, hidden, dtype=torch.float64),
        (
            draws.orthogonal(hidden, 0.8),
            draws.normal(BATCH, hidden),
            draws.log_uniform(low, high, BATCH, hidden),
        ),
    )


def _forced(draws: _Draws) -> _Drawn:
    frequency = 3.0

    def field(tau: Tensor) -> VectorField:
        def target(t: Tensor, y: Tensor) -> Tensor:
            return torch.cos(frequency * t).to(y.dtype).expand_as(y)

        return SemilinearField(ParameterisedField(target), tau)

    def exact(y0: Tensor, tau: Tensor, t: float = 2.0) -> Tensor:
        # The particular solution is a cosine and a sine; what remains decays.
        phase, lag = frequency * t, frequency * tau
        scale = 1 / (1 + lag.square())
        return scale * (math.cos(phase) + lag * math.sin(phase)) + (y0 - scale) * (-t / tau).exp()

    return _Drawn(
        "dy/dt = (cos 3t - y) / tau, tau in [0.1, 2], solved exactly",
        (0.0, 2.0),
        field,
        draws.normal(BATCH, 8),
        (draws.log_uniform(0.1, 2.0, BATCH, 8),),
        exact,
    )


def _per_sample(function: Callable[..., Tensor]) -> Callable[..., VectorField]:
    def field(*parameters: Tensor) -> VectorField:
        return ParameterisedField(function, *parameters)

    return field


def _van_der_pol(draws: _Draws) -> _Drawn:
    def function(t: Tensor, y: Tensor, mu: Tensor) -> Tensor:
        x, v = y.unbind(-1)
        return torch.stack([v, mu * (1 - x.square()) * v - x], -1)

    return _Drawn(
        "x'' = mu (1 - x²) x' - x, mu in [0.1, 3]",
        (0.0, 2.0),
        _per_sample(function),
        torch.stack([draws.uniform(1.0, 2.0, BATCH), draws.uniform(-0.5, 0.5, BATCH)], -1),
        (draws.log_uniform(0.1, 3.0, BATCH),),
    )


def _lotka_volterra(draws: _Draws) -> _Drawn:
    def function(t: Tensor, y: Tensor, rates: Tensor) -> Tensor:
        growth, hunt, death, feed = rates.unbind(-1)
        prey, hunters = y.unbind(-1)
        met = prey * hunters
        return torch.stack([growth * prey - hunt * met, feed * met - death * hunters], -1)

    return _Drawn(
        "x' = a x - b x y, y' = d x y - c y, each rate in [0.5, 1.5]",
        (0.0, 4.0),
        _per_sample(function),
        draws.uniform(0.5, 2.0, BATCH, 2),
        (draws.uniform(0.5, 1.5, BATCH, 4),),
    )


def _pendulum(draws: _Draws) -> _Drawn:
    def function(t: Tensor, y: Tensor, friction: Tensor) -> Tensor:
        angle, speed = y.unbind(-1)
        return torch.stack([speed, -torch.sin(angle) - friction * speed], -1)

    return _Drawn(
        "a'' = -sin a - c a', c in [0, 0.3]",
        (0.0, 4.0),
        _per_sample(function),
        torch.stack([draws.uniform(-2.5, 2.5, BATCH), draws.uniform(-1.0, 1.0, BATCH)], -1),
        (draws.uniform(0.0, 0.3, BATCH),),
    )


_PROBLEMS: dict[str, Callable[[_Draws], Any]] = {
    "liquid": lambda draws: _liquid_cell(draws, 0.5, 5.0),
    "stiff_liquid": lambda draws: _liquid_cell(draws, 0.1, 5.0),
    "forced": _forced,
    "van_der_pol": _van_der_pol,
    "lotka_volterra": _lotka_volterra,
    "pendulum": _pendulum,
}
