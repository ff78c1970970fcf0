"""A field over a time of its own: t = t0 + speed s, which runs forwards over (0, whole)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from solvers.fields.base import RelaxationField, VectorField, check_like
from solvers.fields.batch_parts import Rows, WrappedFunction, select
from solvers.fields.jacobians import Jacobian, check_jacobian, own_jacobian


class InOwnTime(WrappedFunction):
    """A function of t, y as one of s, y.

    Settings: t0 and speed, each ``()`` or with an entry a sample ``(B,)``; and whether the
    function's result is a derivative by t, to become one by s.
    """

    def __call__(self, s: Tensor, y: Tensor) -> Any:
        t, speed = self._time(s, y.ndim)
        value = self.function(t, y)
        if not self.settings[2]:
            return value
        return check_like(value, y, "field(t, y)") * speed.to(y.dtype)

    def _time(self, s: Tensor, axes: int) -> tuple[Tensor, Tensor]:
        """t and speed, of a sample each with so many axes."""
        t0, speed, _ = self.settings
        if t0.ndim:
            columns = -1, *[1] * (axes - 1)
            t0, speed = t0.view(columns), speed.view(columns)
        return (t0 + s * speed).to(s.dtype), speed

    @property
    def jacobian(self) -> Jacobian | None:
        own = own_jacobian(self.function)
        if own is None:
            return None

        def jacobian(s: Tensor, y: Tensor) -> Tensor:
            t, speed = self._time(s, y.ndim)
            value = check_jacobian(own(t, y), y, 1 if y.ndim > 1 else 0)
            if speed.ndim:
                speed = speed.view(-1, *[1] * (value.ndim - 1))
            return value * speed.to(value.dtype)

        return jacobian

    def select(self, rows: Rows) -> Any:
        t0, speed, derivative = self.settings
        if t0.ndim:
            t0, speed = t0[rows], speed[rows]
        return type(self)(select(self.function, rows), t0, speed, derivative)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (*self.settings[:2], *super().tensors)

    def with_tensors(self, *tensors: Tensor) -> Any:
        t0, speed, *rest = tensors
        function = self.function.with_tensors(*rest) if rest else self.function
        return type(self)(function, t0, speed, self.settings[2])


class LeakBackwards(InOwnTime):
    """A relaxation field whose leak, backwards in time, is none."""


def in_own_time(
    field: VectorField, t0: Tensor, speed: Tensor, y0: Tensor, *, forwards: bool
) -> VectorField:
    """The field over s.

    Args:
        field: for states like ``y0``.
        t0, speed: ``()`` or ``(B,)``.
        forwards: whether no speed is negative: a leak stays one.
    """
    if not isinstance(field, RelaxationField):
        return InOwnTime(field, t0, speed, True)
    if not forwards:
        return LeakBackwards(field, t0, speed, True)
    columns = speed.view(-1, *[1] * (y0.ndim - 1)) if speed.ndim else speed
    rate = field.rate * columns
    rate = rate.to(field.rate.dtype if isinstance(field.rate, Tensor) else y0.dtype)
    if field.autonomous:  # and so it keeps the derivative that it knows of
        return field.wrapped(lambda function: function, rate)
    return field.wrapped(lambda function: InOwnTime(function, t0, speed, False), rate)
