"""A field for a part of the batch, so that samples that are done are not evaluated any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

Rows = Tensor | slice
"""Samples of a batch: int64 indices ``(n,)``, or a slice."""


@runtime_checkable
class SelectableField(Protocol):
    """A field that can be asked for a part of its batch, and so says that samples are independent.

    One whose ``select`` does not always work, since it wraps another, says so by an attribute
    ``selectable`` that is False.
    """

    def select(self, rows: Rows) -> Any:
        """The field of the samples ``rows``, for states of that many rows, in that order."""


class ParameterisedField:
    """dy/dt = function(t, y, *arguments), where every argument has a row for each sample.

    Unlike a closure over those tensors it can be solved for a part of the batch, so that samples
    that have arrived cost nothing more. (Not with ``args=`` of :meth:`solvers.Solver.solve`, which
    the function takes after its own: which of those have rows is not said.)

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

    def __call__(self, t: Tensor, y: Tensor, *more: Any) -> Tensor:
        return self.function(t, y, *self.arguments, *more)

    def select(self, rows: Rows) -> ParameterisedField:
        if isinstance(rows, slice):
            return self.with_tensors(*(value[rows] for value in self.arguments))
        return self.with_tensors(*(value.index_select(0, rows) for value in self.arguments))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that the field names."""
        return self.arguments

    def with_tensors(self, *tensors: Tensor) -> ParameterisedField:
        """The same field of other tensors."""
        return ParameterisedField(self.function, *tensors)


class WrappedFunction:
    """A function of t and y around another, which says of itself what that one says.

    Args:
        function: what is wrapped.
        settings: of the wrapper, kept where it is made anew for other samples or tensors.
    """

    def __init__(self, function: Any, *settings: Any) -> None:
        self.function, self.settings = function, settings

    def _around(self, function: Any) -> Any:
        return type(self)(function, *self.settings)

    @property
    def autonomous(self) -> bool:
        return bool(getattr(self.function, "autonomous", False))

    @property
    def independent(self) -> bool:
        return bool(getattr(self.function, "independent", False))

    @property
    def selectable(self) -> bool:
        return is_selectable(self.function)

    def select(self, rows: Rows) -> Any:
        return self._around(select(self.function, rows))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        own: tuple[Tensor, ...] = getattr(self.function, "tensors", ())
        return own

    def with_tensors(self, *tensors: Tensor) -> Any:
        return self._around(self.function.with_tensors(*tensors) if tensors else self.function)


def unwrapped(function: Any) -> Any:
    """What the user gave."""
    while isinstance(function, WrappedFunction):
        function = function.function
    return function


def is_selectable(field: Any) -> bool:
    """Whether the field says itself how to ask it for a part of the batch."""
    return callable(getattr(field, "select", None)) and getattr(field, "selectable", True)


def select(field: Any, rows: Rows) -> Any:
    """The field of some samples; of a selectable one, which its type may not say."""
    return field.select(rows)
