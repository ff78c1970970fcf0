"""Solvers by name, for command lines and configurations."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from dataclasses import replace as with_fields
from difflib import get_close_matches
from importlib import import_module, invalidate_caches
from inspect import Parameter, signature
from operator import attrgetter
from pathlib import Path
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
    "rosenbrock23": catalogue.Rosenbrock23(),
    "rodas5p": catalogue.Rodas5P(),
    "exponential_euler": catalogue.ExponentialEuler(),
    "etdrk2": catalogue.ETDRK2(),
    "etdrk4": catalogue.ETDRK4(),
    "semi_implicit_euler": catalogue.SemiImplicitEuler(),
}
_Own = Solver | type[Solver]  # a class that is made when asked for, since it has options of its own
_REGISTERED: dict[str, _Own] = {}


def names() -> list[str]:
    """The names that :func:`get` takes without more ado, those of :func:`register` last.

    Besides these there are ``torchdiffeq:<method>``, ``learned:<path>``, for a file that
    :meth:`solvers.LearnedSolver.save` wrote (``learned`` with the option ``path`` is the same), and
    ``package.module:Class`` for one's own.
    """
    return [*_SOLVERS, *_REGISTERED]


def register(name: str, solver: Solver | type[Solver] | Method, *, replace: bool = False) -> None:
    """Give a solver of one's own a name, for :func:`get` and all that takes a solver by name.

    The name is known in this process alone. A command line, or a run that is resumed later, finds
    a solver by itself as ``package.module:Class`` (see :func:`get`), which needs no registration.

    Args:
        name: without a colon.
        solver: a solver; or a class of solvers, made with its defaults, whose keywords are its
            options; or a method, which then takes equal steps.
        replace: whether it may take the place of another that was registered.

    Raises:
        ValueError: where the name is taken or is none, or the solver is none.

    >>> import solvers
    >>> solvers.register("fine_heun", solvers.Heun(steps=50))
    >>> solvers.get("fine_heun", gradient="checkpointing")
    Heun(steps=50, gradient=Checkpointing())
    """
    if not isinstance(name, str) or not name.strip() or ":" in name:
        raise ValueError(f"the name of a solver must be a word without a colon, not {name!r}")
    own = _own(solver, "register(name, solver)")
    if name in _SOLVERS or name == _LEARNED:
        raise ValueError(f"{name!r} is a solver of this package: take another name")
    before = _REGISTERED.get(name, own)
    if not replace and before != own:
        raise ValueError(
            f"{name!r} is registered already, for {before!r}: take another name, or replace=True"
        )
    _REGISTERED[name] = own


def options(name: str) -> dict[str, Any]:
    """The options of a solver and their defaults.

    Raises:
        ValueError: where the name is unknown.
    """
    return _options(_named(name), name)


def get(name: str, **settings: Any) -> Solver:
    """The solver of that name: ``get("euler", steps=3)``, ``get("torchdiffeq:bosh3", rtol=1e-3)``.

    ``get("package.module:Class")`` imports what the name says, as :func:`register` takes it: a
    solver, a class of them or a method. Where no such module is found as usual, the current
    directory is looked through as well, so that a ``my_solvers.py`` there serves every script. A
    name therefore runs the code that it names.

    An option that is None is left as it is.

    Raises:
        ValueError: where the name, an option or its value is not one the solver takes, or what it
            names cannot be imported.
    """
    solver = _named(name)
    known = _options(solver, name)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(
            f"solver {name!r} takes no option {', '.join(map(repr, unknown))}; "
            f"it takes {', '.join(f'{key}={value}' for key, value in known.items()) or 'none'}"
        )
    settings = {key: value for key, value in settings.items() if value is not None}
    if solver is None:
        return _learned(name, **settings)
    if isinstance(solver, NativeSolver):
        return _native(solver, **settings)
    if isinstance(solver, type):
        try:
            return solver(**settings)
        except TypeError as error:
            raise ValueError(f"solver {name!r} cannot be made: {error}") from error
    return with_fields(solver, **settings) if settings else solver  # type: ignore[type-var]


def _learned(
    name: str, path: str = "", steps: int | None = None, gradient: str = "backpropagation"
) -> Solver:
    path = path or name.partition(":")[2]
    if not path:
        raise ValueError(
            "the solver 'learned' needs the file of its trained coefficients: name it as "
            "learned:PATH, or as the option path. liquid-ode train-solver makes one"
        )
    return LearnedSolver.load(path, steps, gradient=_gradient(gradient))


def _native(solver: NativeSolver, gradient: str | None = None, **settings: Any) -> NativeSolver:
    rule: Any = solver.step_size
    own = {key: value for key, value in settings.items() if hasattr(rule, key)}
    other = {key: value for key, value in settings.items() if key not in own}
    changed = with_fields(rule, **own) if own else rule
    if other:  # of a rule of the other kind, by steps or by tolerances
        if changed != rule:
            rest = ", ".join(key for key in settings if key != "steps")
            raise ValueError(f"steps and {rest} contradict each other: give one or the other")
        changed = Uniform(**other) if rule.controlled else PID(**other)
    mode = solver.gradient if gradient is None else _gradient(gradient, solver.method)
    return with_fields(solver, step_size=changed, gradient=mode)


def _gradient(name: str, method: Method | None = None) -> GradientMode:
    if name not in _GRADIENTS:
        raise ValueError(f"gradient must be one of {', '.join(_GRADIENTS)}, not {name!r}")
    if name == "backsolve" and method is not None and not isinstance(method, RungeKutta):
        # The way back has no leak to treat by itself.
        return BacksolveAdjoint(catalogue.DormandPrince())
    return _GRADIENTS[name]()


def _options(solver: _Own | None, name: str) -> dict[str, Any]:
    """The options and defaults of what a name stands for."""
    if solver is None:
        found = {"path": None, "steps": None} if name == _LEARNED else {"steps": None}
        return found | {"gradient": "backpropagation"}
    if isinstance(solver, TorchDiffEq):
        taken = ["steps"] if solver.fixed_grid else ["rtol", "atol", "max_steps"]
        return {key: getattr(solver, key) for key in taken}
    if isinstance(solver, type):
        return {
            key: None if each.default is Parameter.empty else each.default
            for key, each in signature(solver).parameters.items()
            if each.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
        }
    if not isinstance(solver, NativeSolver):
        return _fields(solver)
    rule = solver.step_size
    if type(rule) is PID:
        found = {key: getattr(rule, key) for key in ("rtol", "atol", "max_steps", "shared")}
    else:
        found = _fields(rule)
    if rule.controlled:
        found |= {"steps": None}
    elif solver.method.error_order is not None:
        found |= {"rtol": None, "atol": None}
    modes = [key for key, mode in _GRADIENTS.items() if mode is type(solver.gradient)]
    return found | {"gradient": modes[0] if modes else None}


def _fields(value: Any) -> dict[str, Any]:
    """The options of a dataclass."""
    if not is_dataclass(value):
        return {}
    return {field.name: getattr(value, field.name) for field in fields(value) if field.init}


def _named(name: str) -> _Own | None:
    """The solver of that name as it is without options; None for a learned one, from a file."""
    if not isinstance(name, str):
        raise ValueError(f"a solver's name must be a string, not {name!r}")
    if name.startswith(_TORCHDIFFEQ):
        return TorchDiffEq(name.removeprefix(_TORCHDIFFEQ))
    if name == _LEARNED or name.startswith(f"{_LEARNED}:"):
        return None
    if name in _REGISTERED:
        return _REGISTERED[name]
    if ":" in name:
        return _imported(name)
    if name not in _SOLVERS:
        near = get_close_matches(name, names(), n=1)
        guess = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(
            f"unknown solver {name!r}{guess}; choose one of {', '.join(names())}, "
            "torchdiffeq:<method>, learned:<path>, or package.module:Class for your own (a name "
            "given by solvers.register is known only where that was called)"
        )
    found = _SOLVERS[name]
    return _named(found) if isinstance(found, str) else found


def _imported(name: str) -> _Own:
    """What ``package.module:Class`` says."""
    module_name, _, path = name.partition(":")
    words = [*module_name.split("."), *path.split(".")]
    if not all(word.isidentifier() for word in words):
        raise ValueError(f"a solver of one's own is named package.module:Class, not {name!r}")
    module = _module(module_name, name)
    try:
        found = attrgetter(path)(module)
    except AttributeError as error:
        near = get_close_matches(path, dir(module), n=1)
        guess = f" (did you mean {near[0]!r}?)" if near else ""
        where = getattr(module, "__file__", None) or "a folder without __init__.py"
        raise ValueError(
            f"solver {name!r}: the module {module_name!r} ({where}) has no {path!r}{guess}"
        ) from error
    return _own(found, repr(name))


def _module(module_name: str, name: str) -> Any:
    """The module, also from the current directory, which a script's own path leaves out."""
    here = str(Path.cwd())
    invalidate_caches()  # it may have been written since this process began
    added = here not in sys.path
    if added:  # last, so that it hides nothing; for now, so that nothing else is found there later
        sys.path.append(here)
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(_FAULT.format(name, module_name, error)) from error
        raise ValueError(
            f"solver {name!r}: there is no module {error.name!r}, neither installed, nor on "
            f"PYTHONPATH, nor in the current directory, {here}"
        ) from error
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise ValueError(_FAULT.format(name, module_name, said)) from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


_FAULT = "solver {!r}: importing {!r} failed: {}"


def _own(value: Any, what: str) -> _Own:
    """A solver of one's own, as it was given or named."""
    if isinstance(value, Method):
        return NativeSolver(method=value)
    if isinstance(value, type) and issubclass(value, NativeSolver):
        return value()
    if isinstance(value, Solver) or (isinstance(value, type) and issubclass(value, Solver)):
        return value
    raise ValueError(
        f"{what} must be a solvers.Solver, a class of them or a solvers.Method, not {value!r}"
    )
