"""What every solver checks of its arguments."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


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


def check_steps(steps: Any, name: str = "steps") -> int:
    """Return a valid number of steps.

    Raises:
        ValueError: where it is no whole number of at least 1.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {steps!r}")
    return steps


def check_tolerance(name: str, value: Any) -> None:
    """Raise ValueError where a tolerance is not a positive finite number."""
    valid = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (valid and 0 < value < math.inf):
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


def check_state(y0: Any) -> Tensor:
    """Return an initial state.

    Raises:
        ValueError: where it is no tensor of floating-point numbers.
    """
    if not isinstance(y0, Tensor):
        raise ValueError(f"y0 must be a tensor, not {type(y0).__name__}")
    if y0.is_complex():
        raise ValueError(
            f"y0 must be real, not {y0.dtype}: solve for its two parts, "
            "y0 = torch.view_as_real(z0), with a field that turns them into z and back by "
            "torch.view_as_complex and torch.view_as_real"
        )
    if not y0.is_floating_point():
        raise ValueError(f"y0 must be floating point, not {y0.dtype}: call y0.float() first")
    return y0


def check_span(t_span: Any) -> tuple[float, float]:
    """Return a time span as two floats.

    Raises:
        ValueError: where it is none, runs backwards, or asks for a gradient.
    """
    _check_no_gradient("t_span", t_span)
    try:
        t0, t1 = (float(t) for t in t_span)
    except (TypeError, ValueError) as error:
        raise ValueError(f"t_span must be two numbers (t0, t1), not {t_span!r}") from error
    if not -math.inf < t0 < t1 < math.inf:
        raise ValueError(
            f"t_span must run forwards, t0 < t1, not from {t0:g} to {t1:g}. To integrate "
            "backwards, negate the field and the time."
        )
    return t0, t1


def _check_no_gradient(name: str, times: Any) -> None:
    """Raise ValueError where a time requires a gradient, which it would not be given."""
    given = times if isinstance(times, (tuple, list)) else (times,)
    if any(isinstance(t, Tensor) and t.requires_grad for t in given):
        raise ValueError(
            f"{name} requires a gradient, and none flows to times: detach it. For dy/dt1 the "
            "field at the end is the derivative, field(t1, solution.y); or put the length of the "
            "span into the field, dy/ds = (t1 - t0) field(t0 + s (t1 - t0), y) over (0, 1)"
        )


def check_jumps(span: tuple[float, float], jump_times: Any) -> tuple[float, ...]:
    """The times at which a field jumps, each once, in order; those outside the span are left out.

    Raises:
        ValueError: where they are no finite numbers, or ask for a gradient.
    """
    if jump_times is None:
        return ()
    _check_no_gradient("jump_times", jump_times)
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


def check_times(y0: Tensor, span: tuple[float, float], t_eval: Any) -> list[float] | Tensor:
    """The times as floats; as a tensor ``(M, B)`` in float64 where every sample has its own.

    Raises:
        ValueError: where they are none, do not increase, or lie outside the span.
    """
    t0, t1 = span
    _check_no_gradient("t_eval", t_eval)
    values = torch.as_tensor(t_eval, dtype=torch.float64, device="cpu").detach()
    of_each = values.ndim == 2 and y0.ndim > 1 and values.shape[1] == y0.shape[0]
    if values.numel() == 0 or not (values.ndim == 1 or of_each):
        each = f", or have shape (M, B) with the times of each of the {y0.shape[0]} samples"
        raise ValueError(
            f"t_eval must be a non-empty list of times{each if y0.ndim > 1 else ''}, not "
            f"{tuple(values.shape)}"
        )
    # A time that was computed in float32 may miss the end by a rounding.
    slack = 1e-6 * (t1 - t0)
    if not bool(((values >= t0 - slack) & (values <= t1 + slack)).all()):
        raise ValueError(f"t_eval must lie within the time span [{t0:g}, {t1:g}]; got {t_eval}")
    if bool((values.diff(dim=0) < 0).any()):
        raise ValueError("t_eval must be increasing")
    values = values.clamp(t0, t1)
    return values if of_each else values.tolist()
