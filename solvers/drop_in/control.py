"""Error control as torchdiffeq has it: one step for all of the state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from solvers.fields.structures import Layout, leaves_of
from solvers.methods.arithmetic import Increment
from solvers.methods.base import BoundMethod, StepResult
from solvers.step_size.pid import PID, ErrorControl
from solvers.step_size.rules import Judgement, Span, Start, sample_rms

Norm = Callable[[Any], Any]
Watch = Callable[[ErrorControl, Tensor, Increment, Tensor], None]
"""Told of a tried step: where it started, its size, and whether it was accepted."""


def mixed_norm(state: Any) -> Tensor:
    """The largest of the root mean squares of a structure's tensors."""
    sizes = [leaf.abs().square().mean().sqrt() for _, leaf in leaves_of(state) if leaf.numel()]
    return torch.stack([size.to(sizes[0].dtype) for size in sizes]).amax()


@dataclass(frozen=True, eq=False)
class SharedControl(PID):
    """:class:`PID` with what torchdiffeq's steps have besides.

    Args:
        smallest_step: a step of this size or less is taken whatever its error.
        norm: of a scaled state, as the user has it; None for its root mean square.
        as_given: the state as the user has it, of one row of the loop's.
        parts: how many states lie beside each other: 2 for that of an adjoint equation. The
            largest of their norms counts.
        watch: is told of every step.
    """

    smallest_step: float = 0.0
    norm: Norm | None = None
    as_given: Callable[[Tensor], Any] | None = None
    parts: int = 1
    watch: Watch | None = None

    def start(self, bound: BoundMethod, span: Span, y0: Tensor) -> Start:
        start = super().start(bound, span, y0)
        return start._replace(control=self._not_too_small(start.control))

    def judge(
        self,
        control: ErrorControl,
        dt: Increment,
        result: StepResult,
        y: Tensor,
        bound: BoundMethod,
    ) -> Judgement:
        judged = super().judge(control, dt, result, y, bound)
        if self.watch is not None and isinstance(judged.accepted, Tensor):
            self.watch(control, y, dt, judged.accepted)
        return judged._replace(control=self._not_too_small(judged.control))

    def _not_too_small(self, control: ErrorControl) -> ErrorControl:
        if not self.smallest_step:
            return control
        # Of a step that left the finite numbers no size is good: it may shrink until it fails.
        larger = control.dt.clamp(min=self.smallest_step)
        return control._replace(dt=torch.where(control.ratio.isinf(), control.dt, larger))

    def _size(self, scaled: Tensor) -> Tensor:
        if self.norm is None and self.parts == 1:
            return sample_rms(scaled)
        rows = scaled.unbind(1) if self.parts > 1 else (scaled,)
        sizes = [self._of_state(row) for row in rows]
        size = sizes[0] if len(sizes) == 1 else torch.maximum(*sizes)
        return size.abs().to(scaled.dtype).reshape(-1, *[1] * (scaled.ndim - 1))

    def _of_state(self, row: Tensor) -> Tensor:
        if self.norm is None or self.as_given is None:
            return sample_rms(row).view(-1)
        return torch.as_tensor(self.norm(self.as_given(row)), device=row.device).detach()

    def _ratio(self, scaled: Tensor, dt: Increment) -> Tensor:
        ratio = self._size(scaled)
        if self.smallest_step and isinstance(dt, Tensor):
            ratio = torch.where(dt <= self.smallest_step, ratio.clamp(max=1), ratio)
        return ratio


def of_adjoint(rule: SharedControl, layout: Layout | None) -> SharedControl:
    """The same for the state and its adjoint beside each other, as the loop has them."""
    own = (
        {}
        if layout is None
        else {name: layout.spread(name, getattr(rule, name)) for name in ("rtol", "atol")}
    )
    return replace(rule, parts=2, watch=None, **own)
