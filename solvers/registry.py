"""Solvers by name, for command lines and configurations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any

from solvers import catalogue
from solvers.gradients.adjoint import BacksolveAdjoint
from solvers.gradients.modes import Backpropagation, Checkpointing, GradientMode
from solvers.learned.solver import LearnedSolver
from solvers.methods.runge_kutta import RungeKutta
from solvers.native import NativeSolver
from solvers.solver import Solver
from solvers.step_size.pid import PID
from solvers.step_size.rules import GradientScaled, Uniform
from solvers.torchdiffeq_adapter import TorchDiffEq

Factory = Callable[..., Solver]

_GRADIENTS: dict[str, Callable[[], GradientMode]] = {
    "backpropagation": Backpropagation,
    "checkpointing": Checkpointing,
    "backsolve": BacksolveAdjoint,
}


def _gradient(name: str, kind: type[NativeSolver] | None = None) -> GradientMode:
    if name not in _GRADIENTS:
        raise ValueError(f"gradient must be one of {', '.join(_GRADIENTS)}, not {name!r}")
    if name == "backsolve" and kind is not None and not isinstance(kind.own[0], RungeKutta):
        # The way back has no leak to treat by itself.
        return BacksolveAdjoint(catalogue.DormandPrince())
    return _GRADIENTS[name]()


def _euler(
    steps: int = 5,
    sharpness: float = 0.5,
    relax: float = 0.02,
    cap: float = 2.0,
    gradient: str = "backpropagation",
) -> Solver:
    rule = GradientScaled(steps, sharpness, relax, cap)
    return catalogue.Euler(step_size=rule, gradient=_gradient(gradient))


def _uniform_euler(steps: int = 5, gradient: str = "backpropagation") -> Solver:
    return catalogue.Euler(step_size=Uniform(steps), gradient=_gradient(gradient))


def _by_steps(kind: type[NativeSolver]) -> Factory:
    def make(steps: int = 5, gradient: str = "backpropagation") -> Solver:
        return kind(steps, gradient=_gradient(gradient, kind))

    return make


def _by_error(kind: type[NativeSolver]) -> Factory:
    def make(
        rtol: float = 1e-5,
        atol: float = 1e-6,
        max_steps: int = 10_000,
        shared: bool = False,
        steps: int | None = None,
        gradient: str = "backpropagation",
    ) -> Solver:
        rule = PID(rtol, atol, max_steps=max_steps, shared=shared)
        if steps is None:
            return kind(step_size=rule, gradient=_gradient(gradient, kind))
        if rule != PID():
            raise ValueError("steps and rtol, atol, max_steps or shared contradict each other")
        return kind(steps, gradient=_gradient(gradient, kind))

    return make


def _by_steps_or_error(kind: type[NativeSolver]) -> Factory:
    """Of a method whose steps may be sized by their error, too."""

    def make(
        steps: int = 5,
        rtol: float | None = None,
        atol: float | None = None,
        gradient: str = "backpropagation",
    ) -> Solver:
        mode = _gradient(gradient, kind)
        if rtol is None and atol is None:
            return kind(steps, gradient=mode)
        if steps != 5:
            raise ValueError("steps and rtol or atol contradict each other: give one or the other")
        return kind(rtol=rtol, atol=atol, gradient=mode)

    return make


def _torchdiffeq_fixed(method: str) -> Factory:
    def make(steps: int = 5) -> Solver:
        return TorchDiffEq(method, steps=steps)

    return make


def _torchdiffeq_adaptive(method: str) -> Factory:
    def make(rtol: float = 1e-5, atol: float = 1e-6, max_steps: int = 10_000) -> Solver:
        return TorchDiffEq(method, rtol=rtol, atol=atol, max_steps=max_steps)

    return make


def _learned(
    path: str | None = None, steps: int | None = None, gradient: str = "backpropagation"
) -> Solver:
    if not path:
        raise ValueError(
            "the solver 'learned' needs the file of its trained coefficients: name it as "
            "learned:PATH, or as the option path. examples/train_solver.py makes one"
        )
    return LearnedSolver.load(path, steps, gradient=_gradient(gradient))


_TORCHDIFFEQ = "torchdiffeq:"
_LEARNED = "learned"

_FACTORIES: dict[str, Factory] = {
    "euler": _euler,
    "uniform_euler": _uniform_euler,
    "midpoint": _by_steps(catalogue.Midpoint),
    "heun": _by_steps_or_error(catalogue.Heun),
    "ralston": _by_steps_or_error(catalogue.Ralston),
    "classic_rk4": _by_steps(catalogue.ClassicRK4),
    "rk4": _torchdiffeq_fixed("rk4"),
    "dopri5": _torchdiffeq_adaptive("dopri5"),
    "heun_euler": _by_error(catalogue.HeunEuler),
    "bosh3": _by_error(catalogue.Bosh3),
    "dormand_prince": _by_error(catalogue.DormandPrince),
    "tsit5": _by_error(catalogue.Tsit5),
    "exponential_euler": _by_steps(catalogue.ExponentialEuler),
    "etdrk2": _by_steps(catalogue.ETDRK2),
    "etdrk4": _by_steps_or_error(catalogue.ETDRK4),
    "semi_implicit_euler": _by_steps(catalogue.SemiImplicitEuler),
}


def names() -> list[str]:
    """The names that :func:`get` takes without more ado.

    Besides these there are ``torchdiffeq:<method>`` and ``learned:<path>``, for a file that
    :meth:`solvers.LearnedSolver.save` wrote (``learned`` with the option ``path`` is the same).
    """
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


def _factory(name: str) -> Factory:
    if not isinstance(name, str):
        raise ValueError(f"a solver's name must be a string, not {name!r}")
    if name.startswith(_TORCHDIFFEQ):
        method = name.removeprefix(_TORCHDIFFEQ)
        fixed = TorchDiffEq(method).fixed_grid
        return _torchdiffeq_fixed(method) if fixed else _torchdiffeq_adaptive(method)
    if name == _LEARNED:
        return _learned
    if name.startswith(f"{_LEARNED}:"):
        return partial(_learned, name.removeprefix(f"{_LEARNED}:"))
    if name not in _FACTORIES:
        near = get_close_matches(name, names(), n=1)
        guess = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(
            f"unknown solver {name!r}{guess}; choose one of {', '.join(names())}, "
            "torchdiffeq:<method> or learned:<path>"
        )
    return _FACTORIES[name]
