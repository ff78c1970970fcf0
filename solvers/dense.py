"""States between the steps, for ``t_eval``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """The start of a step: time, state and derivative. Times broadcast against the state."""

    t: Tensor
    y: Tensor
    derivative: Tensor


def interpolate(knots: Sequence[Step], t_eval: Sequence[float], *, order: int) -> Tensor:
    """States ``(len(t_eval), *y.shape)`` at the asked times, every sample in its own step.

    Linear between the knots for a method of order 1, which it does not worsen; cubic Hermite
    otherwise (Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, II.6.6).
    """
    rows = []
    for time in t_eval:
        row = knots[0].y
        for start, end in pairwise(knots):
            inside = (start.t <= time) & (time <= end.t)
            if not bool(inside.any()):
                continue
            dt = end.t - start.t
            # A sample whose step has no length stays where it is.
            theta = torch.where(dt > 0, (time - start.t) / dt, 0.0).to(row.dtype)
            at = torch.lerp(start.y, end.y, theta.expand_as(row))
            if order > 1:
                at = at + _hermite_correction(start, end, theta, dt.to(row.dtype))
            row = torch.where(inside.expand_as(row), at, row)
        rows.append(row)
    return torch.stack(rows)


def _hermite_correction(start: Step, end: Step, theta: Tensor, dt: Tensor) -> Tensor:
    """What the cubic Hermite interpolant adds to the straight line."""
    chord = end.y - start.y
    return (
        theta
        * (theta - 1)
        * (
            (1 - 2 * theta) * chord
            + (theta - 1) * dt * start.derivative
            + theta * dt * end.derivative
        )
    )
