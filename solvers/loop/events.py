"""Stopping a sample where a function of its state crosses zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers.fields.base import VectorField
from solvers.methods.interpolation import Path


@dataclass(frozen=True)
class Event:
    """A sample's solve ends where ``function(t, y)`` of that sample crosses zero.

    The crossing is found on the dense output, so between two steps; a step over which the
    function does not change its sign is taken to have no crossing. Gradients flow to the state
    and the time of the event as the implicit function theorem has it.

    Args:
        function: ``function(t, y) -> (B,)`` for times ``(B, 1, ..., 1)`` and states ``(B, ...)``;
            no sample's value may depend on another's.
        direction: 1 for crossings from below, -1 from above, 0 for both.

    Raises:
        ValueError: where the direction is none of these, or, on use, the function returns
            another shape.
    """

    function: VectorField | Callable[[Tensor, Tensor], Tensor]
    direction: int = 0

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ValueError(f"an event needs a function(t, y), not {type(self.function).__name__}")
        if self.direction not in {-1, 0, 1}:
            raise ValueError(f"direction must be -1, 0 or 1, not {self.direction!r}")

    def value(self, function: Any, t: Tensor, y: Tensor) -> Tensor:
        """The function's values ``(n,)``."""
        value = function(t, y)
        if isinstance(value, Tensor) and not value.is_floating_point():
            raise ValueError(
                "an event's function must return a distance with a sign, such as y[:, 0] - 0.5, "
                f"not a condition: it returned {value.dtype}"
            )
        if not isinstance(value, Tensor) or value.shape != y.shape[:1]:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                "an event's function must return one value a sample, shape "
                f"({y.shape[0]},); it returned {shape}"
            )
        return value

    def crossed(self, before: Tensor, after: Tensor) -> Tensor:
        """Which samples' values cross zero in the wanted direction, bool ``(n,)``."""
        up = (before < 0) & (after >= 0)
        down = (before > 0) & (after <= 0)
        return {1: up, -1: down, 0: up | down}[self.direction]

    def locate(
        self, function: Any, path: Path, t: Tensor, before: Tensor, after: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The states and times of the crossings, for rows that all have one.

        Args:
            function: the event's function for these rows.
            path: their steps, from ``t`` ``(n, 1, ..., 1)``.
            before, after: the function's values at both ends, of opposite sign.
        """
        shape = t.shape
        with torch.no_grad():
            theta = self._root(function, path, t, before, after).view(shape)
        if torch.is_grad_enabled():
            theta = self._with_gradient(function, path, t, theta)
        return path.at(theta), t + theta * path.dt

    def _root(self, function: Any, path: Path, t: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """The fraction of the step at the crossing, by bisection and the Illinois rule in turn."""
        low, high = torch.zeros_like(before), torch.ones_like(before)
        at_low, at_high = before.clone(), after.clone()
        for count in range(60):
            width = high - low
            if bool((width <= 4 * torch.finfo(width.dtype).eps).all()):
                break
            secant = low + width * (at_low / (at_low - at_high)).nan_to_num(nan=0.5)
            theta = 0.5 * (low + high) if count % 3 == 2 else secant.clamp(low, high)
            columns = theta.view(t.shape)
            value = self.value(function, t + columns * path.dt, path.at(columns))
            below = torch.sign(value) == torch.sign(at_low)
            low, high = torch.where(below, theta, low), torch.where(below, high, theta)
            # The end that stays counts half, or the secant would creep up from one side only.
            at_low, at_high = (
                torch.where(below, value, 0.5 * at_low),
                torch.where(below, 0.5 * at_high, value),
            )
        return high

    def _with_gradient(self, function: Any, path: Path, t: Tensor, theta: Tensor) -> Tensor:
        """The same fraction, carrying dtheta = -dg / (dg/dtheta)."""
        with torch.enable_grad():
            moving = theta.detach().requires_grad_()
            value = self.value(function, t + moving * path.dt, path.at(moving))
            if not value.requires_grad:
                return theta
            (slope,) = torch.autograd.grad(value.sum(), moving, retain_graph=True)
            fixed = self.value(function, t + theta * path.dt, path.at(theta))
            shift = (fixed - fixed.detach()).view(theta.shape) / slope.detach()
        return theta - shift
