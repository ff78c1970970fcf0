"""The liquid cell: a leaky recurrent unit in continuous time, with input-dependent time constants.

tau(x) dh/dt = -h + tanh(W_rec h + W_in x + b)
tau(x) = clamp(tau_base (1/2 + sigmoid(MLP(x))), 0.1, 5)
"""

from __future__ import annotations

import copy
import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from liquid_ode.cells.wiring import Wiring, check_count
from solvers import Euler, PullbackField, Solver, TargetPullback

TAU_MIN = 0.1
TAU_MAX = 5.0


class LiquidField(PullbackField):
    """The dynamics of a liquid cell for one input: a field for any solver.

    dh/dt = (tanh(W_rec h + drive) - h) rate, with drive = W_in x + b and rate = 1 / tau(x)
    computed once, not once per evaluation.

    Args:
        recurrent: W_rec, ``(hidden, hidden)``.
        drive: ``(B, hidden)``.
        rate: ``(B, hidden)``, in units of 1/time.
    """

    def __init__(self, recurrent: Tensor, drive: Tensor, rate: Tensor) -> None:
        if rate.shape != drive.shape or drive.ndim != 2:
            raise ValueError(
                "drive and rate must have the same shape (B, hidden), not "
                f"{tuple(drive.shape)} and {tuple(rate.shape)}"
            )
        # Not super().__init__: the cell's parameterisation keeps tau in its range, and looking
        # again would cost a synchronisation on an accelerator.
        self.recurrent = recurrent.to(drive.dtype)
        self.drive = drive
        self._rate: Tensor = rate

    def target(self, t: Tensor, y: Tensor) -> Tensor:
        """tanh(W_rec h + drive), ``(B, hidden)``."""
        return _tanh(torch.addmm(self.drive, y, self.recurrent.t()))

    def select(self, rows: Tensor | slice) -> LiquidField:
        """The field of some of the samples."""
        return self._with(self.recurrent, self.drive[rows], self._rate[rows])

    def scaled(self, duration: Tensor) -> LiquidField:
        """The field in the time s = t / duration, so that every sample runs over s in (0, 1).

        Args:
            duration: ``(B, 1)``, at least 0.
        """
        return self._with(self.recurrent, self.drive, self._rate * duration)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.recurrent, self.drive

    def with_inputs(self, rate: Tensor, *inputs: Tensor) -> LiquidField:
        recurrent, drive = inputs
        return self._with(recurrent, drive, rate)

    def _with(self, recurrent: Tensor, drive: Tensor, rate: Tensor) -> LiquidField:
        """A copy, also of what a subclass added, with other tensors."""
        other = copy.copy(self)
        other.recurrent, other.drive, other._rate = recurrent, drive, rate
        return other

    def pullback(self, *inputs: Tensor) -> TargetPullback:
        return _LiquidPullback(inputs[0])


class _LiquidPullback:
    """Gradients through tanh(W_rec h + drive)."""

    def __init__(self, recurrent: Tensor) -> None:
        self.recurrent = recurrent
        # Sums of rounded products stay accurate in float32.
        dtype = torch.promote_types(recurrent.dtype, torch.float32)
        self.recurrent_grad = torch.zeros_like(recurrent, dtype=dtype)
        self.drive_grad: Tensor | None = None

    def pull(self, y: Tensor, target: Tensor, grad: Tensor, base: Tensor) -> Tensor:
        inner = torch.ops.aten.tanh_backward.grad_input(grad, target, grad_input=grad)  # (B, H)
        if y.dtype == self.recurrent_grad.dtype:
            self.recurrent_grad.addmm_(inner.t(), y)
        else:
            self.recurrent_grad += inner.t() @ y
        pulled = base.addmm_(inner, self.recurrent)
        self.drive_grad = inner if self.drive_grad is None else self.drive_grad.add_(inner)
        return pulled

    def gradients(self) -> tuple[Tensor, ...]:
        return self.recurrent_grad.to(self.recurrent.dtype), cast(Tensor, self.drive_grad)


def _tanh(x: Tensor) -> Tensor:
    """tanh of a fresh tensor, which may be overwritten."""
    if x.dtype == torch.bfloat16 and x.device.type == "cpu":
        return x.float().tanh_().to(x.dtype)  # PyTorch's own takes three times as long
    return x.tanh_()


class LiquidCell(nn.Module):
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
        super().__init__()
        self._check(input_size, hidden_size, solver, wiring, tau_init)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.solver = solver
        self.wiring = wiring
        self.inputs = nn.Linear(input_size, hidden_size)
        self.recurrent = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.tau_base = nn.Parameter(torch.full((hidden_size,), float(tau_init)))
        width = tau_hidden or max(8, hidden_size // 4)
        self.tau_mlp = nn.Sequential(
            nn.Linear(input_size, width), nn.SiLU(), nn.Linear(width, hidden_size)
        )
        self.recurrent_mask: Tensor | None
        self.input_mask: Tensor | None
        recurrent_mask = None if wiring is None else wiring.recurrent
        input_mask = None if wiring is None else wiring.inputs
        self.register_buffer("recurrent_mask", recurrent_mask, persistent=False)
        self.register_buffer("input_mask", input_mask, persistent=False)
        self.reset_parameters()

    @staticmethod
    def _check(
        input_size: int, hidden_size: int, solver: Solver, wiring: Wiring | None, tau_init: float
    ) -> None:
        for name, value in (("input_size", input_size), ("hidden_size", hidden_size)):
            check_count(name, value)
        if not isinstance(solver, Solver):
            raise ValueError(
                "solver must be a solver, such as solvers.Euler(steps=5) or "
                f"solvers.get('heun'), not {solver!r}"
            )
        if not TAU_MIN <= tau_init <= TAU_MAX:
            raise ValueError(f"tau_init must lie in [{TAU_MIN}, {TAU_MAX}], not {tau_init}")
        if wiring is None:
            return
        if wiring.units != hidden_size:
            raise ValueError(
                f"the wiring has {wiring.units} units, the cell has hidden_size={hidden_size}"
            )
        if wiring.inputs is not None and wiring.inputs.shape[1] != input_size:
            raise ValueError(
                f"the wiring takes {wiring.inputs.shape[1]} inputs, the cell has "
                f"input_size={input_size}"
            )

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        nn.init.orthogonal_(self.recurrent, gain=0.8)
        nn.init.xavier_uniform_(self.inputs.weight)
        nn.init.zeros_(self.inputs.bias)
        if self.recurrent_mask is not None:
            with torch.no_grad():  # unused weights stay at zero: no gradient, nothing to decay
                self.recurrent.mul_(self.recurrent_mask)
        if self.input_mask is not None:
            with torch.no_grad():
                self.inputs.weight.mul_(self.input_mask)

    def time_constant(self, x: Tensor) -> Tensor:
        """τ(x) within [0.1, 5.0], in the unit of ``duration``: ``(*batch, hidden_size)``."""
        gate = torch.sigmoid(self.tau_mlp(self._checked_input(x)))  # (*batch, H)
        base = self.tau_base.to(gate.dtype)
        return torch.addcmul(0.5 * base, base, gate).clamp(TAU_MIN, TAU_MAX)

    def field(self, x: Tensor) -> LiquidField:
        """The vector field of the inputs x ``(B, input_size)``, for a state ``(B, hidden_size)``.

        What does not change during a solve, W_in x + b and τ(x), is computed here, once.
        """
        x = self._checked_input(x)
        if x.ndim != 2:
            raise ValueError(f"field(x) takes x of shape (B, {self.input_size}), not {x.shape}")
        weight = self.inputs.weight
        if self.input_mask is not None:
            weight = weight * self.input_mask
        recurrent: Tensor = self.recurrent
        if self.recurrent_mask is not None:
            recurrent = recurrent * self.recurrent_mask
        drive = F.linear(x, weight, self.inputs.bias)  # (B, H)
        # CUDA's autocast takes reciprocals in float32; the field is in the dtype of its drive.
        rate = self.time_constant(x).reciprocal().to(drive.dtype)
        return LiquidField(recurrent, drive, rate)

    def forward(
        self, x: Tensor, h0: Tensor | None = None, *, duration: float | Tensor = 1.0
    ) -> Tensor:
        """Let the state flow from h0 for ``duration`` under the constant input x.

        Args:
            x: ``(*batch, input_size)``.
            h0: ``(*batch, hidden_size)``; zeros if None.
            duration: time to integrate over, at least 0: a number, or ``(*batch, 1)`` where
                every sample has its own.

        Returns:
            h1 ``(*batch, hidden_size)``. Every row of the batch is a sample of its own: its
            result does not depend on the others, for solvers that control steps per sample.

        Raises:
            ValueError: where a shape does not fit, or a duration is negative or not finite.
            SolverError: where the solver fails.
        """
        batch = x.shape[:-1]
        field = self.field(self._checked_input(x).reshape(-1, self.input_size))
        if h0 is None:
            state = torch.zeros_like(field.drive)
        else:
            self._check_state(h0, batch)
            state = h0.reshape(-1, self.hidden_size).to(field.drive.dtype)
        span = (0.0, 1.0)
        if isinstance(duration, Tensor):
            field = field.scaled(self._checked_durations(duration, batch).to(state.dtype))
        else:
            if not (math.isfinite(duration) and duration >= 0):
                raise ValueError(f"duration must be finite and at least 0, not {duration}")
            if duration == 0:
                return state.reshape(*batch, self.hidden_size)
            span = (0.0, float(duration))
        h1 = self.solver.solve(field, state, span).y
        return h1.reshape(*batch, self.hidden_size)

    def _checked_input(self, x: Tensor) -> Tensor:
        if x.ndim == 0 or x.shape[-1] != self.input_size:
            raise ValueError(f"x must have shape (*batch, {self.input_size}), not {tuple(x.shape)}")
        return x

    def _check_state(self, h0: Tensor, batch: torch.Size) -> None:
        expected = (*batch, self.hidden_size)
        if tuple(h0.shape) != expected:
            raise ValueError(f"h0 must have shape {expected}, not {tuple(h0.shape)}")

    @staticmethod
    def _checked_durations(duration: Tensor, batch: torch.Size) -> Tensor:
        if tuple(duration.shape) not in {(*batch, 1), ()}:
            raise ValueError(
                f"duration must be a number or have shape {(*batch, 1)}, "
                f"not {tuple(duration.shape)}"
            )
        if not bool(((duration >= 0) & torch.isfinite(duration)).all()):
            raise ValueError("every duration must be finite and at least 0")
        return duration.expand(*batch, 1).reshape(-1, 1)

    def extra_repr(self) -> str:
        wiring = "" if self.wiring is None else f", wiring={self.wiring}"
        return f"{self.input_size}, {self.hidden_size}, solver={self.solver}{wiring}"
