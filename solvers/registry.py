"""Solvers by name, for command lines and configurations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from solvers.fixed import Euler, ExponentialEuler, Heun, Midpoint, SemiImplicitEuler
from solvers.solver import Solver
from solvers.step_size import GradientScaled, Uniform
from solvers.torchdiffeq_adapter import TorchDiffEq


def _euler(steps: int = 5, sharpness: float = 0.5, relax: float = 0.02, cap: float = 2.0) -> Solver:
    return Euler(steps=steps, step_size=GradientScaled(sharpness, relax, cap))


def _uniform_euler(steps: int = 5) -> Solver:
    return Euler(steps=steps, step_size=Uniform())


def _midpoint(steps: int = 5) -> Solver:
    return Midpoint(steps=steps)


def _heun(steps: int = 5) -> Solver:
    return Heun(steps=steps)


def _exponential_euler(steps: int = 5) -> Solver:
    return ExponentialEuler(steps=steps)


def _semi_implicit_euler(steps: int = 5) -> Solver:
    return SemiImplicitEuler(steps=steps)


def _rk4(steps: int = 5) -> Solver:
    return TorchDiffEq("rk4", steps=steps)


def _dopri5(rtol: float = 1e-5, atol: float = 1e-6, max_steps: int = 10_000) -> Solver:
    return TorchDiffEq("dopri5", rtol=rtol, atol=atol, max_steps=max_steps)


_TORCHDIFFEQ = "torchdiffeq:"

_FACTORIES: dict[str, Callable[..., Solver]] = {
    "euler": _euler,
    "uniform_euler": _uniform_euler,
    "midpoint": _midpoint,
    "heun": _heun,
    "rk4": _rk4,
    "dopri5": _dopri5,
    "exponential_euler": _exponential_euler,
    "semi_implicit_euler": _semi_implicit_euler,
}


def names() -> list[str]:
    """The names that :func:`get` takes; besides these, ``torchdiffeq:<method>``."""
    return list(_FACTORIES)


def options(name: str) -> dict[str, Any]:
    """The options of a solver and their defaults.

    Raises:
        ValueError: where the name is unknown.
    """
    parameters = inspect.signature(_factory(name)).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def get(name: str, **settings: Any) -> Solver:
    """The solver of that name: ``get("euler", steps=3)``, ``get("torchdiffeq:bosh3", rtol=1e-3)``.

    Raises:
        ValueError: where the name, an option or its value is not one the solver takes.
    """
    known = options(name)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(
            f"solver {name!r} takes no option {', '.join(map(repr, unknown))}; "
            f"it takes {', '.join(f'{key}={value}' for key, value in known.items())}"
        )
    return _factory(name)(**settings)


def _factory(name: str) -> Callable[..., Solver]:
    if not isinstance(name, str):
        raise ValueError(f"a solver's name must be a string, not {name!r}")
    if name.startswith(_TORCHDIFFEQ):
        return _torchdiffeq_factory(name.removeprefix(_TORCHDIFFEQ))
    if name not in _FACTORIES:
        raise ValueError(
            f"unknown solver {name!r}; choose one of {', '.join(names())}, or torchdiffeq:<method>"
        )
    return _FACTORIES[name]


def _torchdiffeq_factory(method: str) -> Callable[..., Solver]:
    if TorchDiffEq(method).fixed_grid:
        return lambda steps=5: TorchDiffEq(method, steps=steps)
    return lambda rtol=1e-5, atol=1e-6, max_steps=10_000: TorchDiffEq(
        method, rtol=rtol, atol=atol, max_steps=max_steps
    )
