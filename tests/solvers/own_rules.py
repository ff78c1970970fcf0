"""Step-size rules of a user's own: two as the README shows them, and one from the ground up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

import solvers


@dataclass(frozen=True)
class Graded(solvers.BudgetRule):
    """Steps that grow evenly from the start."""

    def propose(self, control: solvers.Budget, derivative: Tensor | None) -> solvers.Increment:
        done = self.steps - control.steps_left
        return (2 * done + 1) / (self.steps**2 - done**2) * control.remaining


@dataclass(frozen=True)
class Doubling(solvers.PID):
    """Error control by steps that are halved, kept or doubled."""

    def judge(
        self,
        control: solvers.ErrorControl,
        dt: solvers.Increment,
        result: solvers.StepResult,
        y: Tensor,
        bound: solvers.BoundMethod,
    ) -> solvers.Judgement:
        judged = super().judge(control, dt, result, y, bound)
        ratio = judged.control.ratio
        factor = torch.where(ratio > 1, 0.5, torch.where(ratio < 0.01, 2.0, 1.0))
        return judged._replace(control=judged.control._replace(dt=control.dt * factor))


class Left(NamedTuple):
    """What is left of the time, and the next step, ``(B, 1, ..., 1)``."""

    remaining: Tensor
    dt: Tensor


@dataclass(frozen=True)
class Deadbeat(solvers.StepSizeRule):
    """The step that the last error asks for, and no other memory."""

    rtol: float = 1e-5
    atol: float = 1e-6
    tries: int = 10_000

    controlled: ClassVar[bool] = True

    @property
    def most_tries(self) -> float:  # type: ignore[override]
        return self.tries

    def start(self, bound: solvers.BoundMethod, span: solvers.Span, y0: Tensor) -> solvers.Start:
        shape = len(y0), *[1] * (y0.ndim - 1)
        left = torch.full(shape, span[1] - span[0], dtype=torch.float64, device=y0.device)
        t0 = torch.full(shape, span[0], dtype=y0.dtype, device=y0.device)
        return solvers.Start(Left(left, left / 100), bound.first(t0, y0), evaluations=1)

    def propose(self, control: Left, derivative: Tensor | None) -> solvers.Increment:
        return torch.minimum(control.dt, control.remaining)

    @torch.no_grad()
    def judge(
        self,
        control: Left,
        dt: solvers.Increment,
        result: solvers.StepResult,
        y: Tensor,
        bound: solvers.BoundMethod,
    ) -> solvers.Judgement:
        scale = self.atol + self.rtol * torch.maximum(y.abs(), result.y.abs())
        worst = (bound.error(result, dt) / scale).abs().flatten(1).amax(1)
        ratio = worst.detach().nan_to_num(nan=torch.inf).view(control.dt.shape)
        accepted = ratio <= 1
        wanted = (0.9 * ratio.double() ** (-1 / (bound.method.error_order or 1))).clamp(0.2, 5.0)
        left = torch.where(
            accepted, (control.remaining - control.dt).clamp(min=0), control.remaining
        )
        after = Left(left, wanted * torch.minimum(control.dt, control.remaining))
        ended = (left <= 0) | (~accepted & (after.dt < 1e-13))
        return solvers.Judgement(after, accepted, ended.view(-1))


class GradedHeun(solvers.Heun, step_size=Graded(8)):
    """Heun's method on graded steps."""


OWN_RULES: list[solvers.NativeSolver] = [
    GradedHeun(),
    solvers.Tsit5(step_size=Doubling()),
    solvers.Bosh3(step_size=Deadbeat()),
]
