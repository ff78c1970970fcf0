"""What a call's ``method`` and ``options`` name: a solver of this package, or torchdiffeq's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from solvers import registry
from solvers.drop_in.control import SharedControl
from solvers.native import NativeSolver
from solvers.step_size.pid import PID
from solvers.torchdiffeq_adapter import torchdiffeq_methods

# torchdiffeq's names, where this package has another for the same pair.
_ALIASES = {"dopri5": "dormand_prince", "adaptive_heun": "heun_euler"}
_ADAPTIVE = (
    "first_step", "min_step", "max_step", "max_num_steps", "safety", "ifactor", "dfactor", "norm",
    "step_t", "jump_t", "dtype",
)  # fmt: skip
_GRID = ("step_size", "grid_constructor", "interp", "perturb", "norm")
_SCIPY = ("solver", "min_step", "max_step", "norm")
_LEAST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Options:
    """The options of a native error-controlled method, and what is left of them.

    Attributes:
        rule: of the steps, without the tolerances.
        norm: the user's, or None.
        jumps: times at which steps end.
        bounded: whether the number of steps was bounded.
    """

    rule: SharedControl
    norm: Any
    jumps: Tensor | None
    bounded: bool


def native(method: str | None) -> NativeSolver | None:
    """The solver of this package that a method names, or None where it is torchdiffeq's own.

    Raises:
        ValueError: where neither has a method of that name, or it is no error-controlled one.
    """
    name = "dopri5" if method is None else method
    if not isinstance(name, str):
        raise ValueError(f"method must be a name, such as 'dopri5', not {method!r}")
    name = _ALIASES.get(name, name)
    known = registry.names()
    if ":" in name or name in known:
        solver = registry.get(name)
        if isinstance(solver, NativeSolver) and isinstance(solver.step_size, PID):
            return solver
    if name in torchdiffeq_methods():
        return None
    if ":" in name or name in known:
        raise ValueError(
            f"method {name!r} takes a number of steps, which odeint has no argument for: call "
            f"solvers.get({name!r}, steps=...).solve(field, y0, t_span)"
        )
    own = [*_ALIASES, *(each for each in known if _controlled(each))]
    every = sorted({*own, *torchdiffeq_methods()})
    near = get_close_matches(name, every, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"method {method!r} is unknown{meant} The methods are {', '.join(every)}")


def _controlled(name: str) -> bool:
    solver = registry.get(name)
    return isinstance(solver, NativeSolver) and isinstance(solver.step_size, PID)


def native_options(given: Mapping[str, Any] | None) -> Options:
    """The options of an error-controlled method of this package.

    Raises:
        ValueError: where one is unknown, or its value is none for it.
    """
    given = check_known(given, _ADAPTIVE)
    _check_dtype(given.get("dtype"))
    settings: dict[str, Any] = {}
    names = {"safety": "safety", "ifactor": "factor_max", "dfactor": "factor_min"}
    for name, own in {**names, "first_step": "first_step", "max_step": "dt_max"}.items():
        value = _number(given, name)
        if value is not None and not math.isinf(value):
            settings[own] = value
    norm = given.get("norm")
    if norm is not None and not callable(norm):
        raise ValueError(f"the option norm must be a function of the state, not {norm!r}")
    most = _number(given, "max_num_steps")
    most = None if most == math.inf else most
    if most is not None and (not most.is_integer() or most < 1):
        raise ValueError(
            "the option max_num_steps must be a whole number of at least 1, not "
            f"{given['max_num_steps']!r}"
        )
    rule = SharedControl(
        max_steps=2**31 - 1 if most is None else int(most),
        smallest_step=_number(given, "min_step") or 0.0,
        shared=True,
        **settings,
    )
    return Options(rule, norm, _jumps(given), most is not None)


def _number(given: Mapping[str, Any], name: str) -> float | None:
    """An option that is a number; None where it is not given."""
    value = given.get(name)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"the option {name} must be a number, not {value!r}") from error


def _jumps(given: Mapping[str, Any]) -> Tensor | None:
    """The times of ``step_t`` and ``jump_t``."""
    times = [_times(name, given[name]) for name in ("step_t", "jump_t") if name in given]
    return torch.cat(times) if times else None


def _times(name: str, value: Any) -> Tensor:
    try:
        times = torch.as_tensor(() if value is None else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"the option {name} must be a tensor of times, not {value!r}") from error
    return times.detach().double().cpu().reshape(-1)


def _check_dtype(dtype: Any) -> None:
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"the option dtype must be one of floating point, not {dtype!r}")


def check_known(given: Mapping[str, Any] | None, known: tuple[str, ...]) -> Mapping[str, Any]:
    """The options of a call.

    Raises:
        ValueError: where one is unknown.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"options must be a dict, not {given!r}")
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(
            f"the option {unknown[0]!r} is unknown; this method has {', '.join(known)}"
        )
    return given


def check_torchdiffeq_options(method: str, given: Mapping[str, Any] | None) -> None:
    """Raise ValueError where a method of torchdiffeq has no such option."""
    if method == "scipy_solver":
        known: tuple[str, ...] = _SCIPY
    elif not torchdiffeq_methods()[method]:
        known = _ADAPTIVE
    else:
        adams = {
            "explicit_adams": (),
            "implicit_adams": ("implicit",),
            "fixed_adams": ("implicit",),
        }
        more = (*adams[method], "max_order", "max_iters") if method in adams else ()
        known = (*_GRID, *more)
    check_known(given, known)


def with_tolerances(rule: SharedControl, rtol: Any, atol: Any, parts: int | None) -> SharedControl:
    """The rule with a call's tolerances.

    Args:
        rule: without.
        rtol, atol: numbers, tensors, or one for each of the ``parts`` of a tuple.
        parts: how many tensors the state has; None where it is one.
    """
    return replace(rule, rtol=_tolerance("rtol", rtol, parts), atol=_tolerance("atol", atol, parts))


def _tolerance(name: str, value: Any, parts: int | None) -> Any:
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise ValueError(f"{name} requires a gradient, and none flows to it: detach it")
        if not value.ndim:
            return _tolerance(name, float(value), parts)
        if parts is not None and value.ndim == 1:
            return tuple(_tolerance(name, float(each), None) for each in value)
        return torch.where(value == 0, _LEAST, value)
    if isinstance(value, (tuple, list)):
        return type(value)(_tolerance(name, each, None) for each in value)
    # One of the two may be 0, and a part of the state as well.
    return _LEAST if isinstance(value, (int, float)) and value == 0 else value
