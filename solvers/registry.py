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


def _by_either(kind: type[NativeSolver], given: int | None) -> Factory:
    """Of a method that estimates its error: by tolerances, or by a number of steps."""

    def make(
        steps: int | None = given,
        rtol: float | None = None,
        atol: float | None = None,
        max_steps: int | None = None,
        shared: bool = False,
        gradient: str = "backpropagation",
    ) -> Solver:
        tolerances = {"rtol": rtol, "atol": atol, "max_steps": max_steps}
        chosen: dict[str, Any] = {key: x for key, x in tolerances.items() if x is not None}
        mode = _gradient(gradient, kind)
        if chosen and steps not in (None, given):
            raise ValueError(f"steps and {', '.join(chosen)} contradict each other: give one")
        if shared or chosen or steps is None:
            return kind(step_size=PID(**chosen, shared=shared), gradient=mode)
        return kind(steps, gradient=mode)

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
    "heun": _by_either(catalogue.Heun, 5),
    "ralston": _by_either(catalogue.Ralston, 5),
    "classic_rk4": _by_steps(catalogue.ClassicRK4),
    "rk4": _torchdiffeq_fixed("rk4"),
    "dopri5": _torchdiffeq_adaptive("dopri5"),
    "heun_euler": _by_either(catalogue.HeunEuler, None),
    "bosh3": _by_either(catalogue.Bosh3, None),
    "dormand_prince": _by_either(catalogue.DormandPrince, None),
    "tsit5": _by_either(catalogue.Tsit5, None),
    "exponential_euler": _by_steps(catalogue.ExponentialEuler),
    "etdrk2": _by_steps(catalogue.ETDRK2),
    "etdrk4": _by_either(catalogue.ETDRK4, 5),
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
