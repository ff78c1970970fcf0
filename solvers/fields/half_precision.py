"""A field of half-precision states, for a solve in a wider type."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from solvers.fields.base import SemilinearField, VectorField, check_like
from solvers.fields.batch_parts import Rows, is_selectable, select


def promoted(field: VectorField, high: torch.dtype, y0: Tensor) -> VectorField:
    """The field, evaluated in the type of ``y0`` on states that are ``high``."""
    if isinstance(field, SemilinearField):
        return _PromotedSemilinear(field, y0.dtype, high, y0.ndim)
    return _Promoted(field, y0.dtype, high, y0.ndim)


class _Promoted:
    def __init__(self, field: Any, low: torch.dtype, high: torch.dtype, axes: int) -> None:
        self.field, self.low, self.high, self.axes = field, low, high, axes
        self.selectable = is_selectable(field)

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        return self._evaluate(self.field, "field(t, y)", t, y)

    def _evaluate(self, function: Any, what: str, t: Tensor, y: Tensor) -> Tensor:
        state = y.to(self.low)
        time = t.to(self.low) if t.ndim else t
        return check_like(function(time, state), state, what).to(self.high)

    def select(self, rows: Rows) -> VectorField:
        return type(self)(select(self.field, rows, self.axes), self.low, self.high, self.axes)


class _PromotedSemilinear(_Promoted, SemilinearField):
    def __init__(
        self, field: SemilinearField, low: torch.dtype, high: torch.dtype, axes: int
    ) -> None:
        super().__init__(field, low, high, axes)
        rate = field.rate
        self._rate = rate.to(high) if isinstance(rate, Tensor) else rate
        self.autonomous = field.autonomous

    def target(self, t: Tensor, y: Tensor) -> Tensor:
        return self._evaluate(self.field.target, "field.target(t, y)", t, y)
