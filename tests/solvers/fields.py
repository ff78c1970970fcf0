"""Vector fields with known solutions, and the liquid fields that the contracts speak of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

import solvers
from liquid_ode.cells import LiquidField
from solvers import PullbackFunction, QuasilinearField, SemilinearField


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


class Saturation(PullbackFunction):
    """Target tanh(W y + b) and gain 1.5 + sin y, differentiated by hand."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tanh(torch.addmm(self.bias, y, self.weight.t())), 1.5 + y.sin()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.weight, self.bias

    def with_tensors(self, *tensors: Tensor) -> Saturation:
        return type(self)(*tensors)

    def select(self, rows: Tensor | slice) -> Saturation:
        return type(self)(self.weight, self.bias[rows])

    def pullback(self) -> _SaturationPullback:
        return _SaturationPullback(self.weight, self.bias)


class _SaturationPullback:
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.grads = weight, [torch.zeros_like(weight), torch.zeros_like(bias)]

    def pull(
        self, y: Tensor, values: tuple[Tensor, ...], grads: tuple[Tensor, ...], base: Tensor
    ) -> Tensor:
        (target, _), (target_grad, gain_grad) = values, grads
        inner = target_grad * (1 - target.square())
        self.grads[0] += inner.t() @ y
        self.grads[1] += inner
        return base + inner @ self.weight + y.cos() * gain_grad

    def gradients(self) -> tuple[Tensor, ...]:
        return tuple(self.grads)


class Saturating(QuasilinearField):
    """dy/dt = rate (1.5 + sin y) (tanh(W y + b) - y)."""

    def __init__(self, weight: Tensor, bias: Tensor, rate: Tensor) -> None:
        super().__init__(Saturation(weight, bias), rate)


def reference(field: solvers.VectorField, y0: Tensor, span: tuple[float, float]) -> Tensor:
    """The solution to about 1e-9, by a method that is not ours."""
    tight = solvers.TorchDiffEq("dopri8", rtol=1e-10, atol=1e-11)
    return tight.solve(field, y0, span).y


def is_taped(y: Tensor) -> bool:
    """Whether the gradient of what a solver returned is the hand-written one."""
    assert y.grad_fn is not None
    nodes = [y.grad_fn, *(parent for parent, _ in y.grad_fn.next_functions)]
    return any(type(node).__name__.startswith("_Call") for node in nodes)
