"""The liquid cell: a leaky recurrent unit in continuous time, with input-dependent time constants.

tau(x) dh/dt = -h + tanh(W_rec h + W_in x + b)
tau(x) = clamp(tau_base (1/2 + sigmoid(MLP(x))), 0.1, 5)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from liquid_ode.cells.liquid.dynamics import (
    LiquidDynamics,
    LiquidParameters,
    LiquidTarget,
    bounded_tau,
)
from liquid_ode.cells.names import explained
from liquid_ode.cells.ode import of_each
from liquid_ode.cells.wiring.masks import WiredLinear
from liquid_ode.cells.wiring.wiring import Wiring
from solvers import Euler, Pullback, PullbackFunction, Solver


class VectorTarget(LiquidTarget, PullbackFunction):
    """tanh(W_rec h + drive), ``(B, hidden)``, that knows its own derivative."""

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        return _tanh(torch.addmm(self.drive, y, self.recurrent.t()))

    def pullback(self) -> Pullback:
        return _LiquidPullback(self.recurrent)


class LiquidField(LiquidDynamics):
    """The dynamics of a liquid cell for one input: a field for any solver.

    dh/dt = (tanh(W_rec h + drive) - h) rate, with drive = W_in x + b and rate = 1 / tau(x)
    computed once, not once per evaluation.

    Args:
        recurrent: W_rec, ``(hidden, hidden)``.
        drive: ``(B, hidden)``.
        rate: ``(B, hidden)``, in units of 1/time.

    Raises:
        ValueError: where the last two differ in shape.
    """

    kind = VectorTarget


class _LiquidPullback:
    """Gradients through tanh(W_rec h + drive)."""

    def __init__(self, recurrent: Tensor) -> None:
        self.recurrent = recurrent
        # Sums of rounded products stay accurate in float32.
        dtype = torch.promote_types(recurrent.dtype, torch.float32)
        self.recurrent_grad = torch.zeros_like(recurrent, dtype=dtype)
        self.drive_grad: Tensor | None = None

    def pull(
        self, y: Tensor, values: tuple[Tensor, ...], grads: tuple[Tensor, ...], base: Tensor
    ) -> Tensor:
        (target,), (grad,) = values, grads
        inner = torch.ops.aten.tanh_backward.grad_input(grad, target, grad_input=grad)  # (B, H)
        if y.dtype == self.recurrent_grad.dtype:
            self.recurrent_grad.addmm_(inner.t(), y)
        else:
            self.recurrent_grad += inner.t() @ y
        pulled = base.addmm_(inner, self.recurrent)
        self.drive_grad = inner if self.drive_grad is None else self.drive_grad.add_(inner)
        return pulled

    def gradients(self) -> tuple[Tensor, ...]:
        return self.recurrent_grad, cast(Tensor, self.drive_grad)


def _tanh(x: Tensor) -> Tensor:
    """tanh of a fresh tensor, which may be overwritten."""
    if x.dtype == torch.bfloat16 and x.device.type == "cpu":
        return x.float().tanh_().to(x.dtype)  # PyTorch's own takes three times as long
    return x.tanh_()


class LiquidCell(LiquidParameters):
    """A liquid cell whose dynamics are integrated by an injected solver.

    τ(x) dh/dt = -h + tanh(W_rec h + W_in x + b), with
    τ(x) = clamp(τ_base (1/2 + σ(MLP(x))), 0.1, 5.0). W_rec starts orthogonal with gain 0.8,
    τ_base at ``tau_init``.

    Args:
        input_size: features of x.
        hidden_size: features of the state h.
        solver: any solver of :mod:`solvers`; 3 to 7 steps are usual.
        wiring: which neurons are connected; None for all. Weights outside it are never used.
        tau_init: initial τ_base, in the unit of time of ``duration``.
        tau_hidden: width of the MLP of τ; a quarter of ``hidden_size``, at least 8, if None.

    Raises:
        ValueError: where a size is below 1, τ is out of range, the wiring has another size, or
            the solver is none.

    Reference: Hasani et al., Liquid time-constant networks, AAAI 2021, for the idea of an
    input-dependent time constant; Funahashi & Nakamura 1993 for the continuous-time recurrent
    network.
    """

    inputs: nn.Linear

    @explained
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        solver: Solver = Euler(steps=5),
        wiring: Wiring | None = None,
        tau_init: float = 1.0,
        tau_hidden: int | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            solver,
            wiring,
            tau_init,
            tau_hidden,
            inputs=nn.Linear,
            wired_inputs=WiredLinear,
            pixelwise=nn.Linear,
        )

    def time_constant(self, x: Tensor) -> Tensor:
        """τ(x) within [0.1, 5.0], in the unit of ``duration``: ``(*batch, hidden_size)``."""
        self._features(x)
        return bounded_tau(self.tau_base, self.tau_mlp(x))

    def fields_in_unit_time(self, x: Tensor, durations: Tensor) -> Sequence[LiquidField]:
        return self.fields(x, durations)

    def fields(self, x: Tensor, durations: Tensor | None = None) -> Sequence[LiquidField]:
        drive = self._drive(x)  # (T, B, H)
        rate = self._rates(x, drive.dtype, durations)
        recurrent = self.wired("recurrent").to(drive.dtype)
        return [
            LiquidField(recurrent, *of_one)
            for of_one in zip(of_each(drive), of_each(rate), strict=True)
        ]
