"""Step sizes controlled by an estimate of the local error, for each sample by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from solvers.checks import check_flag, check_number, check_steps, check_tolerance
from solvers.fields.structures import Layout, leaves_of
from solvers.methods.arithmetic import Increment, seen_time, time_dtype
from solvers.methods.base import BoundMethod, Method, StepResult
from solvers.solution import MAX_STEPS, NON_FINITE, STEP_UNDERFLOW
from solvers.step_size.rules import (
    Judgement,
    Span,
    Start,
    StepSizeRule,
    Tolerance,
    per_sample,
    sample_rms,
)


class ErrorControl(NamedTuple):
    """What PID control remembers of the running samples, each ``(n, 1, ..., 1)``."""

    remaining: Tensor
    """In float64, where the device has it."""
    dt: Tensor
    """The next step, before it is cut at t1."""
    ratio: Tensor
    """Error ratio of the last step that was tried."""
    last_ratio: Tensor | None
    """Error ratios of the last two accepted steps, where the coefficients use them."""
    ratio_before: Tensor | None
    smallest: Tensor
    """A step below this cannot be resolved; no axes."""
    rtol: Tensor
    """The tolerances, with the axes of the state or without any."""
    atol: Tensor


@dataclass(frozen=True, eq=False)
class PID(StepSizeRule):
    r"""Per-sample error control by a PID controller.

    With the error ratio r_n = RMS(error / (atol + rtol max(|y_n|, |y_{n+1}|))), the RMS taken over
    the elements of one sample, a step is accepted where r <= 1, and the next is

        dt_{n+1} = dt_n clamp(safety r_n^(-(kp + ki + kd)/q) r_{n-1}^((kp + 2 kd)/q)
                              r_{n-2}^(-kd/q), factor_min, factor_max),

    where q is the order of the error estimate. The defaults (kp, ki, kd) = (0, 1, 0) are the
    standard controller; (0.4, 0.6, 0) rejects fewer steps where a stiff field limits them. The
    size of a step carries no gradient.

    The last step is cut to land on t1. A sample that has arrived or failed is not evaluated any
    more, where the field can be asked for a part of the batch (see
    :class:`solvers.SelectableField`); where it cannot, it is evaluated on with the others, and
    left as it is. Time is kept in float64 where the device has it.

    Args:
        rtol, atol: relative and absolute tolerance of the local error of a step: numbers, or
            tensors that broadcast to the state, also with a row for each sample; of a state that
            is a structure of tensors also a structure like it, or like its outer part, of these.
            For states in half precision they are taken as no smaller than its rounding (0.008 in
            bfloat16).
        proportional, integral, derivative: the coefficients kp, ki, kd.
        safety: the part of the step that the error allows which is taken.
        factor_min, factor_max: bounds on the change of the step from one to the next.
        dt_min: a sample that needs a smaller step fails with STEP_UNDERFLOW; None for the
            smallest step that the time resolves.
        dt_max: the largest step; None for no bound.
        first_step: the first step; None chooses it by one more evaluation (Hairer, Nørsett &
            Wanner, Solving Ordinary Differential Equations I, II.4).
        max_steps: steps, rejected ones included, after which a sample fails with MAX_STEPS.
        shared: one step for all samples, controlled by the error of all, as for one system: for
            fields whose samples depend on each other, and those that take t for a number.

    Raises:
        ValueError: where a number is out of its range, or on use with a method that has no
            error estimate.

    Reference: Söderlind 2003, Digital filters in adaptive time-stepping, sections 2 and 3.
    """

    rtol: Tolerance = 1e-5
    atol: Tolerance = 1e-6
    proportional: float = 0.0
    integral: float = 1.0
    derivative: float = 0.0
    safety: float = 0.9
    factor_min: float = 0.2
    factor_max: float = 10.0
    dt_min: float | None = None
    dt_max: float | None = None
    first_step: float | None = None
    max_steps: int = 10_000
    shared: bool = False

    controlled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            for path, value in leaves_of(getattr(self, name), name):
                check_tolerance(path, value)
        for name in ("proportional", "integral", "derivative"):
            check_number(name, getattr(self, name), -math.inf, math.inf)
        if not self.proportional + self.integral + self.derivative > 0:
            raise ValueError("proportional + integral + derivative must be positive")
        check_number("safety", self.safety, 0, 1)
        check_number("factor_min", self.factor_min, 0, 1)
        check_number("factor_max", self.factor_max, 1, math.inf)
        for name in ("dt_min", "dt_max", "first_step"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value, 0, math.inf)
        if self.dt_min is not None and self.dt_max is not None and self.dt_min > self.dt_max:
            raise ValueError(f"dt_min {self.dt_min} must not exceed dt_max {self.dt_max}")
        check_steps(self.max_steps, "max_steps")
        check_flag("shared", self.shared)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and _compared(vars(self)) == _compared(vars(other))

    def __hash__(self) -> int:
        return hash(_compared(vars(self)))

    def check(self, method: Method) -> None:
        if method.error_order is None:
            raise ValueError(
                f"PID needs a method that estimates its error, which this one of order "
                f"{method.order} does not: take HeunEuler, Bosh3, DormandPrince or Tsit5 (ETDRK4 "
                "for semilinear fields), or a number of steps"
            )

    def with_tolerances(self, rtol: Tolerance | None, atol: Tolerance | None) -> PID:
        rtol = self.rtol if rtol is None else rtol
        return replace(self, rtol=rtol, atol=self.atol if atol is None else atol)

    def laid_out(self, layout: Layout) -> PID:
        rtol, atol = layout.spread("rtol", self.rtol), layout.spread("atol", self.atol)
        rule, rounding = replace(self, rtol=rtol, atol=atol), layout.rounding
        return rule if rounding is None else rule.with_rounding(rounding)

    def with_rounding(self, rounding: float | Tensor) -> PID:
        return self.with_tolerances(
            _at_least(self.rtol, rounding), _at_least(self.atol, rounding / 8)
        )

    def start(self, bound: BoundMethod, span: Span, y0: Tensor) -> Start:
        whole = per_sample(span[1] - span[0], y0, time_dtype(y0.device))
        resolved = 4 * torch.finfo(torch.float64).eps * max(abs(span[0]), abs(span[1]))
        smallest = max(self.dt_min or 0.0, resolved)
        rtol, atol = (_tolerance(name, getattr(self, name), y0) for name in ("rtol", "atol"))
        first = bound.first(seen_time(torch.full_like(whole, span[0]), y0), y0)
        if self.first_step is None:
            dt, evaluations = (
                self._first_step(bound, span, y0.detach(), first.detach(), rtol, atol),
                2,
            )
        else:
            dt, evaluations = per_sample(self.first_step, y0, y0.dtype), 1
        # An estimate may be 0 by chance, as that of Bosh3 is at dt = tau: of a step that is the
        # whole span it would be the only evidence.
        longest = min(self.dt_max or math.inf, (span[1] - span[0]) / 2)
        ones = torch.ones_like(dt)
        control = ErrorControl(
            remaining=whole,
            dt=dt.clamp(min=smallest, max=longest),
            ratio=ones,
            last_ratio=ones if self.proportional or self.derivative else None,
            ratio_before=ones if self.derivative else None,
            smallest=torch.tensor(smallest, dtype=dt.dtype, device=dt.device),
            rtol=rtol,
            atol=atol,
        )
        return Start(control, first, evaluations)

    def propose(self, control: ErrorControl, derivative: Tensor | None) -> Increment:
        return torch.minimum(control.dt, control.remaining)

    def judge(
        self,
        control: ErrorControl,
        dt: Increment,
        result: StepResult,
        y: Tensor,
        bound: BoundMethod,
    ) -> Judgement:
        if not torch.is_grad_enabled():  # asked first, since a step of a small batch pays for both
            return self._judged(control, dt, result, y, bound)
        with torch.no_grad():
            return self._judged(control, dt, result, y, bound)

    def _judged(
        self,
        control: ErrorControl,
        dt: Increment,
        result: StepResult,
        y: Tensor,
        bound: BoundMethod,
    ) -> Judgement:
        order = bound.method.error_order or 1
        # Detached: no_grad does not stop forward-mode differentiation.
        largest = torch.maximum(y.detach().abs(), result.y.detach().abs())
        allowed = torch.addcmul(control.atol, largest, control.rtol)
        scaled = bound.error(result, dt).detach() / allowed
        # A NaN, of the error or of the state, is an infinite error.
        ratio = self._ratio(scaled, dt).nan_to_num_(nan=math.inf, posinf=math.inf)
        accepted = ratio <= 1
        next_dt = self._factor(control, ratio, order, accepted).mul_(dt)
        if self.dt_max is not None:
            next_dt.clamp_(max=self.dt_max)
        # Less the step as it was before it was cut at t1, and rounded to the dtype of the state.
        left = (control.remaining - control.dt).relu_()
        remaining = torch.where(accepted, left, control.remaining)
        last, before = control.last_ratio, control.ratio_before
        if before is not None and last is not None:
            before = torch.where(accepted, last, before)
        if last is not None:
            last = torch.where(accepted, ratio, last)
        lost = (next_dt < control.smallest) > accepted  # the one and not the other
        if self.dt_min is not None:  # an accepted step is no reason to give up
            next_dt = torch.where(accepted, next_dt.clamp(min=self.dt_min), next_dt)
        ended = remaining.logical_not().logical_or_(lost).view(-1)
        after = ErrorControl(
            remaining, next_dt, ratio, last, before, control.smallest, control.rtol, control.atol
        )
        return Judgement(after, accepted, ended)

    def _size(self, scaled: Tensor) -> Tensor:
        """How large a scaled state is, for each sample ``(n, 1, ..., 1)``."""
        return sample_rms(scaled)

    def _ratio(self, scaled: Tensor, dt: Increment) -> Tensor:
        """The error ratio of a step of this size, likewise; it may be overwritten."""
        return self._size(scaled)

    def _factor(self, control: ErrorControl, ratio: Tensor, order: int, accepted: Tensor) -> Tensor:
        """How much longer the next step is."""
        kp, ki, kd = self.proportional, self.integral, self.derivative
        factor = ratio.pow(-(kp + ki + kd) / order).mul_(self.safety)
        tiny = 1e-4  # of a ratio: an exact step must not decide over the two after it
        if control.last_ratio is not None:
            factor.mul_(control.last_ratio.clamp(min=tiny).pow((kp + 2 * kd) / order))
        if control.ratio_before is not None:
            factor.mul_(control.ratio_before.clamp(min=tiny).pow(-kd / order))
            factor = torch.where(accepted, factor, factor.clamp(max=self.safety))
        return factor.clamp_(self.factor_min, self.factor_max)

    def status(self, judgement: Judgement) -> Tensor:
        control: ErrorControl = judgement.control
        on_its_way = control.remaining.bool()
        codes = on_its_way.to(torch.int8).mul_(int(MAX_STEPS))  # SUCCESS is 0
        lost = (control.dt < control.smallest) > torch.as_tensor(judgement.accepted)
        if bool(lost.any()):
            codes.masked_fill_(lost, int(STEP_UNDERFLOW))
            codes.masked_fill_(lost & torch.isinf(control.ratio), int(NON_FINITE))
        return codes.view(-1)

    @property
    def most_tries(self) -> float:  # type: ignore[override]
        return self.max_steps

    def _first_step(
        self,
        bound: BoundMethod,
        span: Span,
        y0: Tensor,
        first: Tensor,
        rtol: Tensor,
        atol: Tensor,
    ) -> Tensor:
        """A step whose explicit Euler error is about a hundredth of the tolerance."""
        order = bound.method.error_order or 1
        scale = y0.abs().mul_(rtol).add_(atol)
        slope = bound.derivative(y0, first).detach()  # of a rate, too, it takes no gradient
        d0, d1 = self._size(y0 / scale), self._size(slope / scale)
        guess = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
        guess = guess.nan_to_num(nan=1e-6).clamp(max=span[1] - span[0])
        ahead = y0 + guess * slope
        later = seen_time(span[0] + guess.to(time_dtype(y0.device)), y0)
        # Not under no_grad: a field may differentiate by itself, as a Hamiltonian one does.
        change = bound.derivative(ahead, bound.first(later, ahead).detach()).detach() - slope
        largest = torch.maximum(d1, self._size(change / scale) / guess)
        curved = (0.01 / largest).pow(1 / order)
        step = torch.where(largest <= 1e-15, (guess * 1e-3).clamp(min=1e-6), curved)
        step = torch.minimum(100 * guess, step).nan_to_num(nan=1e-6)
        return step.clamp(max=span[1] - span[0])


def _compared(value: Any) -> Any:
    """What tells two rules apart, of tensors their values."""
    if isinstance(value, Tensor):
        return (tuple(value.shape), *value.flatten().tolist())
    if isinstance(value, Mapping):
        parts = sorted(value.items(), key=lambda item: repr(item[0]))  # of keys of any kind
        return tuple((key, _compared(part)) for key, part in parts)
    if isinstance(value, (tuple, list)):
        return tuple(map(_compared, value))
    return value


def _at_least(tolerance: Any, smallest: float | Tensor) -> Any:
    if isinstance(smallest, Tensor):
        return torch.maximum(torch.as_tensor(tolerance).to(smallest), smallest)
    if isinstance(tolerance, Tensor):
        return tolerance.clamp(min=smallest)
    return max(tolerance, smallest)


def _tolerance(name: str, tolerance: Any, y0: Tensor) -> Tensor:
    """A tolerance for the states of this solve.

    Raises:
        ValueError: where it does not fit the state.
    """
    if isinstance(tolerance, (int, float)):
        return torch.tensor(tolerance, dtype=y0.dtype, device=y0.device)
    try:
        return tolerance.to(y0).broadcast_to(y0.shape)
    except (AttributeError, RuntimeError) as error:
        what = f"shape {tuple(tolerance.shape)}" if isinstance(tolerance, Tensor) else "parts"
        raise ValueError(
            f"{name} has {what}, which does not fit a state of shape {tuple(y0.shape)}"
        ) from error
