"""Vector fields with known solutions, and the liquid fields that the contracts speak of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

import solvers
from liquid_ode.cells import LiquidField
from solvers import SemilinearField


@dataclass(frozen=True)
class TimeDependent:
    """dy/dt = -y cos(t) on any shape: y = y0 exp(-sin t)."""

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        return -y * torch.cos(t)

    def exact(self, y0: Tensor, t: float) -> Tensor:
        return y0 * math.exp(-math.sin(t))


class Forced(SemilinearField):
    """dy/dt = (cos(t) - y) / tau: a semilinear field with a moving target, solved exactly."""

    def __init__(self, tau: float = 0.5) -> None:
        super().__init__(lambda t, y: torch.cos(t).to(y.dtype).expand_as(y).clone(), tau)
        self.constant = tau

    def exact(self, y0: Tensor, t: float) -> Tensor:
        tau = self.constant
        scale = 1 / (1 + tau**2)
        particular = scale * (math.cos(t) + tau * math.sin(t))
        return particular + (y0 - scale) * math.exp(-t / tau)


def liquid_field(
    *, seed: int, batch: int = 64, hidden: int = 32, tau: tuple[float, float], gain: float = 0.8
) -> LiquidField:
    """A random liquid field with time constants log-uniform in a range, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    recurrent = gain * torch.linalg.qr(normal(hidden, hidden)).Q
    low, high = (math.log(value) for value in tau)
    uniform = torch.rand(batch, hidden, generator=generator, dtype=torch.float64)
    rate = torch.exp(-(low + (high - low) * uniform))
    return LiquidField(recurrent, normal(batch, hidden), rate)


def reference(field: solvers.VectorField, y0: Tensor, span: tuple[float, float]) -> Tensor:
    """The solution to about 1e-9, by a method that is not ours."""
    tight = solvers.TorchDiffEq("dopri8", rtol=1e-10, atol=1e-11)
    return tight.solve(field, y0, span).y


def is_taped(y: Tensor) -> bool:
    """Whether the gradient of what a solver returned is the hand-written one."""
    assert y.grad_fn is not None
    nodes = [y.grad_fn, *(parent for parent, _ in y.grad_fn.next_functions)]
    return any(type(node).__name__.startswith("_Call") for node in nodes)
