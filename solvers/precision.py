"""A field of half-precision states, for a solve in a wider type."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from solvers.fields import SemilinearField, VectorField, check_like
from solvers.rows import Rows, is_selectable, select


def promoted(field: VectorField, low: torch.dtype, high: torch.dtype) -> VectorField:
    """The field, evaluated in ``low`` on states that are ``high``."""
    if isinstance(field, SemilinearField):
        return _PromotedSemilinear(field, low, high)
    return _Promoted(field, low, high)


class _Promoted:
    def __init__(self, field: Any, low: torch.dtype, high: torch.dtype) -> None:
        self.field, self.low, self.high = field, low, high

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        state = y.to(self.low)
        time = t.to(self.low) if t.ndim else t
        return check_like(self.field(time, state), state, "field(t, y)").to(self.high)

    def __getattr__(self, name: str) -> Any:
        # Only a field that can be asked for a part of its batch says so.
        if name == "select" and is_selectable(self.field):
            return self._select
        raise AttributeError(name)

    def _select(self, rows: Rows) -> VectorField:
        return _Promoted(self.field.select(rows), self.low, self.high)


class _PromotedSemilinear(SemilinearField):
    def __init__(self, field: SemilinearField, low: torch.dtype, high: torch.dtype) -> None:
        self._target = _Promoted(_Target(field), low, high)
        rate = field.rate
        self._rate = rate.to(high) if isinstance(rate, Tensor) else rate
        self.autonomous = field.autonomous


class _Target:
    """The target of a semilinear field as a function of its own."""

    def __init__(self, field: SemilinearField) -> None:
        self.field = field

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        return self.field.target(t, y)

    def __getattr__(self, name: str) -> Any:
        if name == "select" and is_selectable(self.field):
            return self._select
        raise AttributeError(name)

    def _select(self, rows: Rows) -> _Target:
        return _Target(select(self.field, rows, 0))
