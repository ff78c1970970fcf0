"""The integration loop: a method, a step-size rule, a budget of steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from solvers.dense import Step, interpolate
from solvers.fields import VectorField
from solvers.methods import Increment, Method
from solvers.solution import NON_FINITE, SUCCESS, Solution, Stats
from solvers.step_size import StepSizeRule


def under_transform() -> bool:
    """Whether a compiler or a function transform (vmap, jvp, ...) is tracing the solve."""
    if torch.compiler.is_compiling():
        return True
    stack = getattr(torch._C._functorch, "peek_interpreter_stack", None)
    return stack is None or stack() is not None


def all_finite(y: Tensor) -> bool:
    """Whether no element is NaN or infinite, by one reduction in the usual case."""
    # A finite sum proves it; only a sum that is not (it may have overflowed) needs the full look.
    total = y.sum(dtype=torch.promote_types(y.dtype, torch.float32))
    return bool(torch.isfinite(total)) or bool(torch.isfinite(y).all())


def finite_samples(y: Tensor) -> Tensor:
    """Which samples have no NaN or infinity, bool ``(B,)``."""
    return torch.isfinite(y).flatten(1).all(1) if y.ndim > 1 else torch.isfinite(y)


def finite_status(healthy: Tensor) -> Tensor:
    """SUCCESS where a sample is healthy, NON_FINITE elsewhere: int8 ``(B,)``."""
    return torch.where(healthy, int(SUCCESS), int(NON_FINITE)).to(torch.int8)


def keep_healthy(healthy: Tensor, y: Tensor, fallback: Tensor) -> Tensor:
    """``y`` of the healthy samples, ``fallback`` of the others."""
    return torch.where(healthy.view(-1, *[1] * (y.ndim - 1)), y, fallback)


def integrate(
    method: Method,
    rule: StepSizeRule,
    steps: int,
    field: VectorField,
    y0: Tensor,
    t_span: tuple[float, float],
    t_eval: Sequence[float] | None,
    *,
    freeze: bool = False,
) -> Solution:
    """Take ``steps`` steps of ``method`` from t0 to t1, sized by ``rule``.

    With ``freeze`` every step is checked, and a sample that left the finite numbers keeps its
    last finite state; without it the result is checked by the caller, which costs one look
    instead of one a step.
    """
    t0, t1 = t_span
    remaining = rule.start(t1 - t0, y0)
    y = y0
    healthy = torch.ones(y0.shape[:1], dtype=torch.bool, device=y0.device)
    knots: list[Step] = []
    # Keeping the time costs a kernel a step where every sample has its own.
    timeless = getattr(field, "autonomous", False) and t_eval is None
    time = _time(t1, remaining, y)
    for steps_left in range(steps, 0, -1):
        if not timeless:
            time = _time(t1, remaining, y)
        # Per-sample times have axes: in float32 they would promote what a bfloat16 field returns.
        t = time.to(y.dtype) if time.ndim else time
        first = method.first(field, t, y)
        dt = _next_increment(method, rule, field, y, first, remaining, steps_left)
        y1 = method.step(field, t, y, dt, first)
        if t_eval is not None:
            knots.append(Step(time, y, method.derivative(field, y, first)))
        if freeze:
            healthy = healthy & finite_samples(y1)
            y1 = keep_healthy(healthy, y1, y)
        # Less the increment as applied: a bfloat16 one is rounded, and the rest makes up for it.
        remaining = remaining - dt
        y = y1
    nfe = steps * method.stages
    ys = None
    if t_eval is not None:
        end = _time(t1, 0.0, y)
        slope = torch.zeros_like(y)
        if method.order > 1:
            slope = method.derivative(field, y, method.first(field, end, y))
            nfe += 1
        knots.append(Step(end, y, slope))
        ys = interpolate(knots, t_eval, order=method.order)
    return Solution(y, ys, Stats(nfe=nfe, accepted=steps), finite_status(healthy))


def _time(t1: float, remaining: Increment, y: Tensor) -> Tensor:
    """The present time as a tensor that broadcasts against the state."""
    if isinstance(remaining, Tensor):
        return t1 - remaining
    dtype = torch.promote_types(y.dtype, torch.float32)
    return torch.full((), t1 - remaining, dtype=dtype, device=y.device)


def _next_increment(
    method: Method,
    rule: StepSizeRule,
    field: VectorField,
    y: Tensor,
    first: Tensor,
    remaining: Increment,
    steps_left: int,
) -> Increment:
    """The rule's step, in the dtype of the state."""
    with torch.no_grad():  # the size of a step carries no gradient
        slope = method.derivative(field, y, first) if rule.needs_derivative else first
        dt = rule.propose(remaining, steps_left, slope)
        return dt.to(y.dtype) if isinstance(dt, Tensor) else dt
