"""Rules that choose the size of each step.

A rule plans the step with the first evaluation in hand, so that it costs no evaluation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from solvers.methods import Increment


class StepSizeRule(Protocol):
    """Splits a time span into a budget of steps."""

    needs_derivative: bool

    def propose(self, remaining: Increment, steps_left: int, derivative: Tensor) -> Increment:
        """The size of the next step.

        Args:
            remaining: time left until t1; a float, or ``(B, 1, ..., 1)``.
            steps_left: steps left, this one included; with 1 the answer is ``remaining``.
            derivative: dy/dt at the start of the step; read only if ``needs_derivative``.
        """

    def start(self, span: float, y0: Tensor) -> Increment:
        """The time left before the first step, in the form the rule works on."""


@dataclass(frozen=True)
class Uniform:
    """Equal steps: dt = span / steps."""

    needs_derivative = False

    def start(self, span: float, y0: Tensor) -> float:
        return span

    def propose(self, remaining: Increment, steps_left: int, derivative: Tensor) -> Increment:
        return remaining / steps_left


@dataclass(frozen=True)
class GradientScaled:
    r"""Steps per sample that are shorter where the RMS of dy/dt is larger.

    With m steps left for a remaining time R, an equal step would be R/m long and move the
    sample by d = RMS(dy/dt) R/m. The step taken is

        dt = R / (1 + (m - 1) phi),    phi = 1 - relax + sharpness min(d, cap)^4,

    so that phi = 1 is the equal step, the last step (m = 1) lands on t1 exactly, and no step
    costs an evaluation. The size of the step carries no gradient.

    What to expect of it. For a linear field with rates below the step limit (dt < tau), equal
    steps are the best there are: prod(1 - dt_k / tau) with a fixed sum of dt_k is largest, and
    nearest to exp(-T / tau), where all dt_k are equal (the inequality of arithmetic and
    geometric means). The rule therefore stays within 2% of equal steps while d is small, where
    the slightly longer first step wins under 0.1% of the error, and shortens the step only where
    d says that equal steps would jump about as far as the whole state (|h| <= 1), that is where
    dt nears or exceeds 2 tau and Euler with equal steps oscillates. That is where it pays.

    Args:
        sharpness: how strongly a large movement shortens the step.
        relax: how much longer than equal the first steps are while the movement is small.
        cap: the movement above which the step shrinks no further.

    Raises:
        ValueError: where sharpness < 0, relax is outside [0, 1), or cap <= 0.
    """

    sharpness: float = 0.5
    relax: float = 0.02
    cap: float = 2.0

    needs_derivative = True

    def __post_init__(self) -> None:
        for name in ("sharpness", "relax", "cap"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
                raise ValueError(f"{name} must be a number, not {value!r}")
        if self.sharpness < 0:
            raise ValueError(f"sharpness must be at least 0, not {self.sharpness}")
        if not 0 <= self.relax < 1:
            raise ValueError(f"relax must lie in [0, 1), not {self.relax}")
        if not self.cap > 0:
            raise ValueError(f"cap must be positive, not {self.cap}")

    def start(self, span: float, y0: Tensor) -> Tensor:
        dtype = torch.promote_types(y0.dtype, torch.float32)
        shape = (y0.shape[0], *([1] * (y0.ndim - 1)))
        return torch.full(shape, span, dtype=dtype, device=y0.device)

    def propose(self, remaining: Increment, steps_left: int, derivative: Tensor) -> Increment:
        if steps_left == 1:
            return remaining
        axes = tuple(range(1, derivative.ndim))
        norm = (
            torch.linalg.vector_norm(derivative, dim=axes, keepdim=True)
            if axes
            else derivative.abs()
        )
        # The movement d is norm * remaining * unit; the constants are gathered around it.
        unit = math.prod(derivative.shape[1:]) ** -0.5 / steps_left
        left = steps_left - 1
        moved = norm.to(torch.promote_types(norm.dtype, torch.float32)) * remaining
        fourth = moved.clamp(max=self.cap / unit).square().square()  # a NaN stays one
        phi = fourth * (left * self.sharpness * unit**4) + (1 + left * (1 - self.relax))
        return remaining / phi
