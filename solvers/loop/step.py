"""One step as it is tried: the pure part of the integration loop, which may be compiled."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solvers.fields.base import VectorField
from solvers.methods.arithmetic import Increment, seen_time, time_dtype
from solvers.methods.base import BoundMethod, Method, StepResult
from solvers.solution import all_finite, finite_samples
from solvers.step_size.rules import Judgement, StepSizeRule, per_sample


class Step(NamedTuple):
    """A step that was tried: from where, how far, what it came to, and what the rule says."""

    t: Tensor
    first: Tensor
    dt: Increment
    result: StepResult
    judgement: Judgement
    evaluations: int

    @property
    def _values(self) -> list[Tensor]:
        result = self.result
        values = (result.y, result.last, self.first, result.error, *result.slopes)
        return [value.detach() for value in values if value is not None]

    @property
    def is_finite(self) -> bool:
        """Whether nothing of it, not even what is thrown away, left the finite numbers."""
        return all(all_finite(values) for values in self._values)

    def finite_rows(self) -> Tensor:
        """For which samples that is so, bool ``(n,)``."""
        return torch.stack([finite_samples(values) for values in self._values]).all(0)


def time_of(end: float | Tensor, remaining: Increment, y: Tensor) -> Tensor:
    """The present time as a tensor that broadcasts against the state."""
    if isinstance(remaining, Tensor):
        return torch.sub(end, remaining)  # in less than end - remaining takes of a number
    dtype = torch.promote_types(y.dtype, torch.float32)
    return torch.full((), float(end) - remaining, dtype=dtype, device=y.device)


def times_of(end: float, remaining: Increment, y: Tensor) -> Tensor:
    """The present time of each sample, ``(n, 1, ..., 1)``, in the rule's precision."""
    if not isinstance(remaining, Tensor):
        remaining = per_sample(remaining, y, time_dtype(y.device))
    return end - remaining


def try_step(
    bound: BoundMethod,
    rule: StepSizeRule,
    end: float | Tensor,
    y: Tensor,
    control: Any,
    time: Tensor | None,
    first: Tensor | None,
    needs_end: bool,
) -> Step:
    """Try one step from ``y``.

    Args:
        bound: the method on the field.
        rule: sizes the step and judges it.
        end: t1.
        y: the state.
        control: the rule's.
        time: the time for a field that takes no notice of it, else None.
        first: the first evaluation, where it is known.
        needs_end: whether the first evaluation of the next step is wanted already.
    """
    t = seen_time(time_of(end, control.remaining, y), y) if time is None else time
    evaluations = bound.stages - 1
    if first is None:
        first, evaluations = bound.first(t, y), evaluations + 1
    dt = _propose(bound, rule, control, y, first)
    result = bound.step(t, y, dt, first)
    if result.last is None and needs_end:
        # Not by _replace: a compiled step could not return such a tuple under torch 2.9.
        last = bound.first(t + dt, result.y)
        result = StepResult(result.y, result.error, last, result.slopes)
        evaluations += 1
    return Step(t, first, dt, result, rule.judge(control, dt, result, y, bound), evaluations)


def _propose(
    bound: BoundMethod, rule: StepSizeRule, control: Any, y: Tensor, first: Tensor
) -> Increment:
    """The rule's step, in the dtype of the state."""
    if not rule.needs_derivative:
        dt = rule.propose(control, None)
    else:  # the size of a step carries no gradient, forwards neither
        derivative = bound.derivative(y, first).detach()
        if torch.is_grad_enabled():
            with torch.no_grad():
                dt = rule.propose(control, derivative)
        else:
            dt = rule.propose(control, derivative)
    return dt.to(y.dtype) if isinstance(dt, Tensor) else dt


def try_compiled(
    bound: BoundMethod,
    rule: StepSizeRule,
    end: float | Tensor,
    y: Tensor,
    control: Any,
    time: Tensor | None,
    first: Tensor | None,
    needs_end: bool,
) -> Step:
    """The same by torch.compile, for any number of samples, where no gradient is recorded."""
    # One sample is a size of its own to the compiler, and so another program.
    if torch.is_grad_enabled() or y.shape[0] == 1:
        return try_step(bound, rule, end, y, control, time, first, needs_end)
    # The end as a tensor: every number would be another program.
    end = torch.as_tensor(end, dtype=control.remaining.dtype, device=y.device)
    return _compiled()(bound.method, bound.field, rule, end, y, control, time, first, needs_end)


@cache
def _compiled() -> Any:
    return torch.compile(_try_anew, dynamic=True)


def _try_anew(method: Method, field: VectorField, *arguments: Any) -> Step:
    # A plain bound method: what others keep between steps the compiler would have to follow.
    return try_step(BoundMethod(method, field), *arguments)
