"""Sums of states and slopes over a step.

``dt`` is a float where all samples share it, or a tensor ``(B, 1, ..., 1)`` of the state's
dtype where every sample has its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Increment = float | Tensor


def axpy(y: Tensor, scale: float, dt: Increment, x: Tensor) -> Tensor:
    """y + scale * dt * x in one kernel."""
    if isinstance(dt, Tensor):
        return torch.addcmul(y, x, dt, value=scale)
    return torch.add(y, x, alpha=scale * dt)


def seen_time(t: Tensor, y: Tensor) -> Tensor:
    """The time as a field is given it."""
    # Per-sample times have axes: in float32 they would promote what a bfloat16 field returns.
    return t.to(y.dtype) if t.ndim else t


def time_dtype(device: torch.device) -> torch.dtype:
    """What times are kept in: float64, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def combine(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """sum_i weights_i slopes_i, of which at least one weight is not zero."""
    terms = [(w, slope) for w, slope in zip(weights, slopes, strict=True) if w]
    total = terms[0][1] * terms[0][0]
    for weight, slope in terms[1:]:
        total = torch.add(total, slope, alpha=weight)
    return total


def later(t: Tensor, node: float, dt: Increment) -> Tensor:
    """t + node dt."""
    return torch.add(t, dt, alpha=node) if isinstance(dt, Tensor) else t + node * dt


def advance(y: Tensor, dt: Increment, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """y + dt sum_i weights_i slopes_i."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            y = axpy(y, weight, dt, slope)
    return y
