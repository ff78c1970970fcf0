"""A field as another solve sees it: of half precision, or of one system without a batch axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from solvers.fields.base import RelaxationField, VectorField, evaluate
from solvers.fields.batch_parts import WrappedFunction
from solvers.fields.jacobians import Jacobian, check_jacobian, own_jacobian


def _of_each(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    return tuple(map(change, value)) if isinstance(value, tuple) else change(value)


class HalfPrecision(WrappedFunction):
    """A function of half-precision states, evaluated in ``low`` for states that are ``high``."""

    def __call__(self, t: Tensor, y: Tensor) -> Any:
        low, high = self.settings
        time = t.to(low) if t.ndim else t
        value = evaluate(self.function, time, y.to(low))
        return _of_each(lambda each: each.to(high), value)

    @property
    def jacobian(self) -> Jacobian | None:
        own = own_jacobian(self.function)
        if own is None:
            return None
        low, high = self.settings

        def jacobian(t: Tensor, y: Tensor) -> Tensor:
            low_y = y.to(low)
            return check_jacobian(own(t.to(low) if t.ndim else t, low_y), low_y).to(high)

        return jacobian


class OneSystem(WrappedFunction):
    """A function of one system's state, for states with a batch axis of one before it.

    The function is given the state in the ``shape`` that the user has it in, and a time without
    axes.
    """

    selectable = False

    def __call__(self, t: Tensor, y: Tensor) -> Any:
        (shape,) = self.settings
        value = evaluate(self.function, t.reshape(()), y.reshape(shape))
        return _of_each(lambda each: each.reshape(y.shape), value)

    @property
    def jacobian(self) -> Jacobian | None:
        own = own_jacobian(self.function)
        if own is None:
            return None
        (shape,) = self.settings

        def jacobian(t: Tensor, y: Tensor) -> Tensor:
            axes = 1 if len(shape) > 1 else 0  # samples that share their steps, or one system
            system = y.reshape(shape)
            value = check_jacobian(own(t.reshape(()), system), system, axes)
            if axes:
                value = _block_diagonal(value.reshape(shape[0], shape[1:].numel(), -1))
            return value.reshape(*y.shape, *y.shape[1:])

        return jacobian


def _block_diagonal(blocks: Tensor) -> Tensor:
    """``(B, n, B, n)`` out of blocks ``(B, n, n)``."""
    eye = torch.eye(blocks.shape[0], dtype=blocks.dtype, device=blocks.device)
    return blocks.unsqueeze(2) * eye[:, None, :, None]


class OneSystemsEvent(WrappedFunction):
    """The function of an event of one system: one value, where the loop wants one a sample."""

    selectable = False

    def __call__(self, t: Tensor, y: Tensor) -> Any:
        (shape,) = self.settings
        value = self.function(t.reshape(()), y.reshape(shape))
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                "the event of one system, whose samples share their steps, must return one value, "
                f"shape (); it returned {shape}"
            )
        return value.reshape(1)


def in_half_precision(field: VectorField, low: torch.dtype, high: torch.dtype) -> VectorField:
    """The field evaluated in ``low`` for states that are ``high``."""
    if isinstance(field, RelaxationField):
        rate = field.rate.to(high) if isinstance(field.rate, Tensor) else field.rate
        return field.wrapped(lambda function: HalfPrecision(function, low, high), rate)
    return HalfPrecision(field, low, high)


def as_one_system(field: VectorField, shape: torch.Size) -> VectorField:
    """The field for states with a batch axis of one before their own."""
    if isinstance(field, RelaxationField):
        return field.wrapped(lambda function: OneSystem(function, shape), field.rate)
    return OneSystem(field, shape)
