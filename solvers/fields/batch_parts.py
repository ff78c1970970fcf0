"""A field for a part of the batch, so that samples that are done are not evaluated any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from solvers.fields.base import SemilinearField, VectorField

Rows = Tensor | slice
"""Samples of a batch: int64 indices ``(n,)``, or a slice."""


@runtime_checkable
class SelectableField(Protocol):
    """A field that can be asked for a part of its batch."""

    def select(self, rows: Rows) -> VectorField:
        """The field of the samples ``rows``, for states of that many rows, in that order."""


class ParameterisedField:
    """dy/dt = function(t, y, *arguments), where every argument has a row for each sample.

    Unlike a closure over those tensors it can be solved for a part of the batch, so that samples
    that have arrived cost nothing more.

    Args:
        function: ``function(t, y, *arguments)``, of the shape and dtype of ``y``; no sample's
            result may depend on another's.
        arguments: tensors ``(B, ...)``.

    >>> import torch, solvers
    >>> rates = torch.tensor([[1.0], [5.0]])
    >>> field = solvers.ParameterisedField(lambda t, y, rates: -rates * y, rates)
    >>> solvers.Tsit5().solve(field, torch.ones(2, 3)).status.tolist()
    [0, 0]
    """

    def __init__(self, function: Callable[..., Tensor], *arguments: Tensor) -> None:
        self.function = function
        self.arguments = arguments

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        return self.function(t, y, *self.arguments)

    def select(self, rows: Rows) -> ParameterisedField:
        return ParameterisedField(self.function, *(value[rows] for value in self.arguments))


def is_selectable(field: Any) -> bool:
    """Whether the field says itself how to ask it for a part of the batch.

    A wrapper of a field says so by ``selectable`` where its ``select`` is only as good as that of
    what it wraps.
    """
    if callable(getattr(field, "select", None)):
        return getattr(field, "selectable", True)
    own = isinstance(field, SemilinearField) and type(field).target is SemilinearField.target
    return own and is_selectable(field._target)


def select(field: Any, rows: Rows, axes: int) -> Any:
    """The field of some samples of states with ``axes`` axes.

    A field without ``select`` is taken to work on any number of samples; whether it does is for
    :func:`agrees` to find out.
    """
    if callable(getattr(field, "select", None)):
        return cast(SelectableField, field).select(rows)
    if isinstance(field, SemilinearField):
        return _SemilinearRows(field, rows, axes)
    return field


class _SemilinearRows(SemilinearField):
    """Some samples of a semilinear field that was made of a target and time constants."""

    def __init__(self, field: SemilinearField, rows: Rows, axes: int) -> None:
        rate = field.rate
        if isinstance(rate, Tensor) and rate.ndim == axes and rate.shape[0] > 1:
            rate = rate[rows]
        own = type(field).target is SemilinearField.target
        self._target = select(field._target if own else field.target, rows, axes)
        self._rate = rate
        self.autonomous = field.autonomous


class Among:
    """A function of some samples, by evaluating it on all and leaving the others as they are."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], rows: Tensor, y: Tensor):
        self.function, self.rows, self.y = function, rows, y

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        times = t.new_zeros((self.y.shape[0], *t.shape[1:])).index_put((self.rows,), t)
        return self.function(times, self.y.index_put((self.rows,), y))[self.rows]


def agrees(few: Callable[[], Tensor], all_rows: Tensor, rows: Tensor) -> bool:
    """Whether evaluating a part of the batch gives what evaluating the whole gave there.

    It does not where a plain function holds tensors with a row for each sample: their shapes
    then do not fit, or the values differ.
    """
    expected = all_rows[rows]
    try:
        found = few()
    except Exception:  # whatever the user's function raises on a state of another size
        return False
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    # Kernels round differently for other sizes.
    tolerance = torch.finfo(expected.dtype).eps ** 0.5
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
