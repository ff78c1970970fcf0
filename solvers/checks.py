"""What every solver checks of its arguments."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def holds(condition: Tensor) -> bool | None:
    """Whether it holds everywhere; None where values cannot be looked at.

    That is so under a compiler, under a transform such as vmap, and of fake tensors.
    """
    if torch.compiler.is_compiling():
        return None
    try:
        return bool(condition.all())
    except RuntimeError:
        return None


def is_dual(x: Tensor) -> bool:
    """Whether forward-mode differentiation goes through the tensor."""
    return forward_ad.unpack_dual(x).tangent is not None


def within_a_transform() -> bool:
    """Whether a transform of torch.func is at work, whose tensors hide what they are made of."""
    try:
        torch.empty(0).requires_grad_()  # which it does not allow
    except RuntimeError:
        return True
    return False


def check_steps(steps: Any, name: str = "steps") -> int:
    """Return a valid number of steps.

    Raises:
        ValueError: where it is no whole number of at least 1.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {steps!r}")
    return steps


def check_tolerance(name: str, value: Any) -> None:
    """Raise ValueError where a tolerance is no positive finite number, or tensor of such."""
    if isinstance(value, Tensor) and value.is_floating_point():
        valid = holds((value > 0) & torch.isfinite(value)) is not False
    else:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        valid = number and 0 < value < math.inf
    if not valid:
        raise ValueError(f"{name} must be a positive finite number, not {value!r}")


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Raise ValueError where a number does not lie between two others, those not included."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (low < value < high):
        raise ValueError(f"{name} must be a number in ({low:g}, {high:g}), not {value!r}")


def check_restarts(restarts: Any, problems: int, y0: Tensor) -> None:
    """Raise ValueError where restarts are given, but not one for each sample and problem."""
    if restarts is None:
        return
    batch = y0.shape[:1] if y0.ndim > 1 else ()
    shape = (problems, *batch, *[1] * (y0.ndim - len(batch)))
    if not isinstance(restarts, Tensor) or restarts.dtype != torch.bool:
        raise ValueError(f"restarts must be a bool tensor of shape {shape}, not {restarts!r}")
    if tuple(restarts.shape) != shape:
        raise ValueError(f"restarts must have shape {shape}, not {tuple(restarts.shape)}")


def check_flag(name: str, value: Any) -> None:
    """Raise ValueError where a value is neither True nor False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")


def check_state(y0: Tensor) -> Tensor:
    """Return an initial state.

    Raises:
        ValueError: where it is no tensor of floating-point numbers.
    """
    if not y0.is_floating_point():
        raise ValueError(f"y0 must be floating point, not {y0.dtype}: call y0.float() first")
    return y0


def check_jumps(span: tuple[float, float], jump_times: Any) -> tuple[float, ...]:
    """The times at which a field jumps, each once, in order; those outside the span are left out.

    Raises:
        ValueError: where they are no finite numbers, or ask for a gradient.
    """
    if jump_times is None:
        return ()
    given = jump_times if isinstance(jump_times, (tuple, list)) else (jump_times,)
    if any(isinstance(time, Tensor) and has_gradient(time) for time in given):
        raise ValueError("jump_times requires a gradient, and none flows to them: detach it")
    try:
        values = torch.as_tensor(jump_times, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"jump_times must be a list of times, not {jump_times!r}") from error
    if values.ndim != 1 or not bool(torch.isfinite(values).all()):
        raise ValueError(f"jump_times must be a list of finite times, not {jump_times!r}")
    t0, t1 = span
    found: list[float] = []
    near = 4 * torch.finfo(torch.float64).eps * max(abs(t0), abs(t1))
    for time in sorted(values.tolist()):
        if t0 - near <= time <= t1 + near and not (found and time - found[-1] <= near):
            found.append(min(max(time, t0), t1))
    return tuple(found)


def has_gradient(x: Tensor) -> bool:
    """Whether a derivative is followed through the tensor, backwards or forwards."""
    if x.requires_grad:
        return torch.is_grad_enabled()
    if not x.is_floating_point():
        return False
    with warnings.catch_warnings():  # of what torch imports at the first call
        warnings.simplefilter("ignore")
        return is_dual(x)
