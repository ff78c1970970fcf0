"""The times of a problem as the loop takes them: forwards over (0, whole), the same for all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers.checks import has_gradient, holds
from solvers.fields.base import VectorField
from solvers.fields.own_time import InOwnTime, in_own_time
from solvers.methods.arithmetic import time_dtype


@dataclass(frozen=True, eq=False)
class Clock:
    """t = t0 + speed s, with s over (0, whole).

    It stands between the user's times and the loop's where these run backwards, differ between
    samples or require a gradient: to the loop they are then part of the field,
    dy/ds = speed field(t0 + speed s, y), and autograd follows them as it follows any other.

    Attributes:
        t0, speed: float64 where the device has it, ``()`` or ``(B,)``.
        whole: the longest span of a sample, so that no speed exceeds 1.
    """

    t0: Tensor
    speed: Tensor
    whole: float

    @classmethod
    def over(cls, t0: Tensor, t1: Tensor) -> Clock:
        """The clock of a span; over (0, 1) where vmap hides how long it is."""
        span = t1 - t0
        whole = 1.0 if _hidden(span) else float(span.detach().abs().max()) or 1.0
        return cls(t0, span / whole, whole)

    @property
    def forwards(self) -> bool:
        """Whether no sample is known to go, or may go, backwards."""
        return not _hidden(self.speed) and bool((self.speed >= 0).all())

    @property
    def reach(self) -> float:
        """The largest size of a time of the user's."""
        ends = torch.stack([self.t0, self.t0 + self.speed * self.whole])
        return float(ends.detach().abs().max())

    def field(self, field: VectorField, y0: Tensor) -> VectorField:
        """The field over s."""
        return in_own_time(field, self.t0, self.speed, y0, forwards=self.forwards)

    def function(self, function: Any) -> Any:
        """A function of (t, y), such as an event's, as one of (s, y)."""
        return InOwnTime(function, self.t0, self.speed, False)

    def elapsed(self, t: Tensor) -> Tensor:
        """s at the times ``(M,)`` or ``(M, B)`` of the user."""
        still = self.speed == 0  # of a sample whose span is empty
        return ((t - self.t0) / torch.where(still, 1.0, self.speed)).masked_fill(still, 0.0)

    def stands(self, t: Tensor, *, graph: bool) -> Tensor:
        """Whether the times ``(M, 1)`` or ``(M, B)`` are the start, for a sample that stays there.

        True for any other sample.

        Raises:
            ValueError: where one stays and a gradient goes to them, of ``graph``, or to t0.
        """
        still = self.speed == 0
        if (graph or has_gradient(self.t0)) and holds(~still) is False:
            raise ValueError(
                "t_eval or t0 requires a gradient, which the states at t_eval do not have where "
                "t0 = t1: detach it, or leave those samples out"
            )
        slack = 1e-6 * (self.whole + self.t0.abs())
        return ~still | ((t - self.t0).abs() <= slack).detach()

    def time(self, s: Tensor) -> Tensor:
        """t at s, ``()``, ``(B,)`` or ``(..., B)``, in the type of s; NaN where s is."""
        never = s.isnan()  # a product with NaN has a NaN for its gradient, whatever comes of it
        t = (self.t0 + self.speed * s.masked_fill(never, 0.0)).to(s.dtype)
        return t.masked_fill(never, torch.nan)

    def time_by_row(self, s: Tensor) -> Tensor:
        """t at s, ``(K,)`` or a row of them for each sample ``(B, K)``; for times of each the
        latter."""
        if not self.t0.ndim:
            return self.time(s)
        return self.time(s.t() if s.ndim == 2 else s.unsqueeze(1)).t()

    def of_samples(self, samples: Tensor) -> Clock:
        """The clock of these samples."""
        if not self.t0.ndim:
            return self
        return Clock(self.t0[samples], self.speed[samples], self.whole)


def as_span(t_span: Any, y0: Tensor) -> tuple[float, float] | Clock:
    """A time span as two floats in order, or as a clock where it is more.

    Raises:
        ValueError: where it is none.
    """
    try:
        t0, t1 = t_span
    except (TypeError, ValueError) as error:
        raise ValueError(f"t_span must be two times (t0, t1), not {t_span!r}") from error
    if not (isinstance(t0, Tensor) or isinstance(t1, Tensor)):
        first, last = _as_number("t0", t0), _as_number("t1", t1)
        if first < last:
            return first, last
    start, end = _as_time("t0", t0, y0), _as_time("t1", t1, y0)
    follow = has_gradient(start) or has_gradient(end) or _hidden(start) or _hidden(end)
    if start.ndim == end.ndim == 0 and not follow:
        first, last = float(start), float(end)
        if first < last:
            return first, last
    dtype = time_dtype(y0.device)
    start, end = (t.to(device=y0.device, dtype=dtype) for t in (start, end))
    return Clock.over(*torch.broadcast_tensors(start, end))


def _hidden(t: Tensor) -> bool:
    """Whether the times cannot be read, as under vmap; a compiler goes on beside its graph."""
    return not torch.compiler.is_compiling() and holds(torch.isfinite(t.detach())) is None


def _as_number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} of t_span must be a number or a tensor, not {value!r}") from error
    if not math.isfinite(number):
        raise ValueError(f"{name} of t_span must be finite, not {value!r}")
    return number


def _as_time(name: str, value: Any, y0: Tensor) -> Tensor:
    """A time as a tensor ``()`` or ``(B,)``."""
    if not isinstance(value, Tensor):
        return torch.tensor(_as_number(name, value), dtype=torch.float64)
    batch = y0.shape[:1] if y0.ndim > 1 else ()
    if value.ndim and value.shape != batch:
        each = f" or of shape {tuple(batch)}, one for each sample" if batch else ""
        raise ValueError(f"{name} of t_span must be one number{each}, not {tuple(value.shape)}")
    if holds(torch.isfinite(value.detach())) is False:
        raise ValueError(f"{name} of t_span must be finite, not {value!r}")
    return value
