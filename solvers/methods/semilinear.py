"""What methods for semilinear fields, dy/dt = (target(t, y) - y) / tau, have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from torch import Tensor

from solvers.fields.base import (
    QuasilinearField,
    RelaxationField,
    SemilinearField,
    VectorField,
    evaluate,
)
from solvers.fields.batch_parts import unwrapped
from solvers.fields.own_time import LeakBackwards
from solvers.methods.arithmetic import Increment
from solvers.methods.base import BoundMethod, Method


class SemilinearMethod(Method):
    """A method that evaluates the target of a semilinear field, and treats the leak itself."""

    name: str

    def check(self, field: VectorField) -> None:
        if isinstance(field, LeakBackwards):
            raise ValueError(
                f"{self.name} treats a leak, which backwards in time grows: solve forwards, or "
                "take a method for any field, such as dormand_prince"
            )
        if isinstance(field, QuasilinearField):
            raise ValueError(
                f"{self.name} needs time constants that do not depend on the state, and those of "
                f"{type(field).__name__} do: take semi_implicit_euler or exponential_euler, or a "
                "general method such as heun"
            )
        if not isinstance(field, SemilinearField):
            raise ValueError(
                f"{self.name} needs a SemilinearField, dy/dt = (target(t, y) - y) / tau; "
                f"it was given {type(unwrapped(field)).__name__}. Wrap the field as "
                "solvers.SemilinearField(target, tau), or take a general method such as heun."
            )

    def first(self, field: VectorField, t: Tensor, y: Tensor) -> Tensor:
        target = evaluate(cast(SemilinearField, field).target, t, y, "field.target(t, y)")
        return cast(Tensor, target)

    def derivative(self, field: VectorField, y: Tensor, first: Tensor) -> Tensor:
        return (first - y) * cast(SemilinearField, field).rate


class BoundWeights(BoundMethod, ABC):
    """Keeps the weights of a step while its size does not change."""

    _dt: float | None = None
    _weights: Any = None

    @abstractmethod
    def weigh(self, dt: Increment, y: Tensor) -> Any:
        """The weights of a step of this size."""

    def weights(self, dt: Increment, y: Tensor) -> Any:
        """The same, kept where all samples share the size."""
        if isinstance(dt, Tensor):
            return self.weigh(dt, y)
        if dt != self._dt:
            self._dt, self._weights = dt, self.weigh(dt, y)
        return self._weights


def step_ratio(field: VectorField, dt: Increment, y: Tensor) -> Tensor:
    """dt / tau in the dtype of the state; broadcasts against it."""
    ratio = cast(RelaxationField, field).rate * dt
    if isinstance(ratio, Tensor) and ratio.dtype == y.dtype and ratio.device == y.device:
        return ratio
    return torch.as_tensor(ratio, dtype=y.dtype, device=y.device)
