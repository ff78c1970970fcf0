"""A vector field in a time that runs over (0, 1), whatever the duration of each sample."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from solvers import RelaxationField, VectorField
from solvers.fields.batch_parts import Rows, is_selectable, select


class _InUnitTime:
    """A function of t and y, of the time s = t / duration.

    Args:
        function: the function of t and y.
        durations: ``(B, 1, ..., 1)``.
    """

    def __init__(self, function: Any, durations: Tensor) -> None:
        self.function, self.durations = function, durations

    def __call__(self, s: Tensor, y: Tensor) -> Any:
        return self.function(s * self.durations, y)

    @property
    def selectable(self) -> bool:
        return is_selectable(self.function)

    def select(self, rows: Rows) -> Any:
        return type(self)(select(self.function, rows), self.durations[rows])

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.durations, *getattr(self.function, "tensors", ())

    def with_tensors(self, *tensors: Tensor) -> Any:
        durations, *own = tensors
        return type(self)(self.function.with_tensors(*own) if own else self.function, durations)


class _SlopeInUnitTime(_InUnitTime):
    """dy/ds = duration dy/dt."""

    def __call__(self, s: Tensor, y: Tensor) -> Any:
        return super().__call__(s, y) * self.durations


def in_unit_time(field: VectorField, durations: Tensor) -> VectorField:
    """dy/ds for s = t / duration, so that the solution at s = 1 is that at t = duration.

    A relaxation field stays one, of the rate times the duration.

    Args:
        field: dy/dt.
        durations: ``(B, 1, ..., 1)``, with the axes of the state.
    """
    if not isinstance(field, RelaxationField):
        return _SlopeInUnitTime(field, durations)
    rate = field.rate * durations
    if field.autonomous:
        return field.of_rate(field.function, rate)
    return field.wrapped(lambda function: _InUnitTime(function, durations), rate)
