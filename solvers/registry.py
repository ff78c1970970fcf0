"""Solvers by name, for command lines and configurations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from solvers import catalogue
from solvers.gradients.adjoint import BacksolveAdjoint
from solvers.gradients.modes import Backpropagation, Checkpointing, GradientMode
from solvers.learned.solver import LearnedSolver
from solvers.methods.base import Method
from solvers.methods.runge_kutta import RungeKutta
from solvers.native import NativeSolver
from solvers.solver import Solver
from solvers.step_size.pid import PID
from solvers.step_size.rules import Uniform
from solvers.torchdiffeq_adapter import TorchDiffEq

_GRADIENTS: dict[str, Callable[[], GradientMode]] = {
    "backpropagation": Backpropagation,
    "checkpointing": Checkpointing,
    "backsolve": BacksolveAdjoint,
}
_TORCHDIFFEQ, _LEARNED = "torchdiffeq:", "learned"
# A string is another name: a TorchDiffEq is made when asked for, since it imports torchdiffeq.
_SOLVERS: dict[str, NativeSolver | str] = {
    "euler": catalogue.Euler(),
    "uniform_euler": catalogue.Euler(step_size=Uniform()),
    "midpoint": catalogue.Midpoint(),
    "heun": catalogue.Heun(),
    "ralston": catalogue.Ralston(),
    "classic_rk4": catalogue.ClassicRK4(),
    "rk4": "torchdiffeq:rk4",
    "dopri5": "torchdiffeq:dopri5",
    "heun_euler": catalogue.HeunEuler(),
    "bosh3": catalogue.Bosh3(),
    "dormand_prince": catalogue.DormandPrince(),
    "tsit5": catalogue.Tsit5(),
    "exponential_euler": catalogue.ExponentialEuler(),
    "etdrk2": catalogue.ETDRK2(),
    "etdrk4": catalogue.ETDRK4(),
    "semi_implicit_euler": catalogue.SemiImplicitEuler(),
}


def names() -> list[str]:
    """The names that :func:`get` takes without more ado.

    Besides these there are ``torchdiffeq:<method>`` and ``learned:<path>``, for a file that
    :meth:`solvers.LearnedSolver.save` wrote (``learned`` with the option ``path`` is the same).
    """
    return list(_SOLVERS)


def options(name: str) -> dict[str, Any]:
    """The options of a solver and their defaults.

    Raises:
        ValueError: where the name is unknown.
    """
    solver = _named(name)
    if isinstance(solver, TorchDiffEq):
        taken = ["steps"] if solver.fixed_grid else ["rtol", "atol", "max_steps"]
        return {key: getattr(solver, key) for key in taken}
    if solver is None:
        found = {"path": None, "steps": None} if name == _LEARNED else {"steps": None}
    elif isinstance(rule := solver.step_size, PID):
        taken = ["rtol", "atol", "max_steps", "shared"]
        found = {key: getattr(rule, key) for key in taken} | {"steps": None}
    else:
        found = dict(vars(rule))
        if solver.method.error_order is not None:
            found |= {"rtol": None, "atol": None}
    return found | {"gradient": "backpropagation"}


def get(name: str, **settings: Any) -> Solver:
    """The solver of that name: ``get("euler", steps=3)``, ``get("torchdiffeq:bosh3", rtol=1e-3)``.

    An option that is None is left as it is.

    Raises:
        ValueError: where the name, an option or its value is not one the solver takes.
    """
    solver, known = _named(name), options(name)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(
            f"solver {name!r} takes no option {', '.join(map(repr, unknown))}; "
            f"it takes {', '.join(f'{key}={value}' for key, value in known.items())}"
        )
    settings = {key: value for key, value in settings.items() if value is not None}
    if isinstance(solver, TorchDiffEq):
        return replace(solver, **settings)
    gradient = settings.pop("gradient", "backpropagation")
    if solver is None:
        path = settings.get("path") or name.partition(":")[2]
        if not path:
            raise ValueError(
                "the solver 'learned' needs the file of its trained coefficients: name it as "
                "learned:PATH, or as the option path. examples/train_solver.py makes one"
            )
        return LearnedSolver.load(path, settings.get("steps"), gradient=_gradient(gradient))
    rule: Any = solver.step_size
    own = {key: value for key, value in settings.items() if hasattr(rule, key)}
    other = {key: value for key, value in settings.items() if key not in own}
    changed = replace(rule, **own)
    if other:  # of a rule of the other kind, by steps or by tolerances
        if changed != rule:
            rest = ", ".join(key for key in settings if key != "steps")
            raise ValueError(f"steps and {rest} contradict each other: give one or the other")
        changed = Uniform(**other) if isinstance(rule, PID) else PID(**other)
    return replace(solver, step_size=changed, gradient=_gradient(gradient, solver.method))


def _gradient(name: str, method: Method | None = None) -> GradientMode:
    if name not in _GRADIENTS:
        raise ValueError(f"gradient must be one of {', '.join(_GRADIENTS)}, not {name!r}")
    if name == "backsolve" and method is not None and not isinstance(method, RungeKutta):
        # The way back has no leak to treat by itself.
        return BacksolveAdjoint(catalogue.DormandPrince())
    return _GRADIENTS[name]()


def _named(name: str) -> NativeSolver | TorchDiffEq | None:
    """The solver of that name as it is without options; None for a learned one, from a file."""
    if not isinstance(name, str):
        raise ValueError(f"a solver's name must be a string, not {name!r}")
    if name.startswith(_TORCHDIFFEQ):
        return TorchDiffEq(name.removeprefix(_TORCHDIFFEQ))
    if name == _LEARNED or name.startswith(f"{_LEARNED}:"):
        return None
    if name not in _SOLVERS:
        near = get_close_matches(name, names(), n=1)
        guess = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(
            f"unknown solver {name!r}{guess}; choose one of {', '.join(names())}, "
            "torchdiffeq:<method> or learned:<path>"
        )
    found = _SOLVERS[name]
    return _named(found) if isinstance(found, str) else found
