"""The liquid block of feature maps: a convolutional liquid cell between two norms, with a skip.

With z = SiLU(norm(x, c)) of the map x and the conditioning c,

    d = conv1x1(z)                                             the drive
    tau = clamp(tau_base (1/2 + sigmoid(a d + W_c c)), 0.1, 5)
    h(0) = tanh(d)
    tau dh/dt = -h + tanh(W * norm(h) + d)                      for one unit of time
    out = skip(x) + conv1x1(SiLU(norm(h(1)))),

where * is a convolution with one dense kernel, shared by all steps of the solver.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from liquid_ode.cells.liquid.conv import MapTarget
from liquid_ode.cells.liquid.dynamics import TAU_MAX, TAU_MIN, bounded_tau
from liquid_ode.cells.wiring.masks import Wired
from liquid_ode.cells.wiring.wiring import Wiring
from liquid_ode.models.blocks import ConditionedNorm, check_width, zeroed
from liquid_ode.models.liquid_part import LiquidPart
from solvers import HandWritten, Pullback, PullbackFunction, SemilinearField, Solver
from solvers.fields.batch_parts import Rows

GROUPS = 8


def tanh_(x: Tensor) -> Tensor:
    """tanh in place. In float32 on a CPU, 2 sigmoid(2x) - 1 takes a quarter of the time."""
    recorded = torch.is_grad_enabled()  # when each of these would have to keep its result
    if x.dtype == torch.float32 and x.device.type == "cpu" and not recorded:
        return x.mul_(2).sigmoid_().mul_(2).sub_(1)
    return x.tanh_()


class Tanh(HandWritten):
    """tanh, by :func:`tanh_`."""

    def forward(self, inputs: Sequence[Tensor], *, keep: bool) -> tuple[Tensor, list[Tensor]]:
        result = tanh_(inputs[0].clone())
        return result, [result] if keep else []

    def backward(
        self, inputs: Sequence[Tensor], kept: Sequence[Tensor], grad: Tensor
    ) -> Sequence[Tensor]:
        return [torch.ops.aten.tanh_backward(grad, kept[0])]

    def plain(self, *inputs: Tensor) -> Tensor:
        return torch.tanh(inputs[0])


class NormedMapTarget(MapTarget, PullbackFunction):
    """tanh(W * GroupNorm(h) + drive), ``(B, hidden, H, W)``, that knows its own derivative.

    The norm keeps the recurrent map's input at one scale, whatever the state has grown to.
    """

    def __init__(self, recurrent: Tensor, drive: Tensor, scale: Tensor, shift: Tensor) -> None:
        super().__init__(recurrent, drive)
        self.scale, self.shift = scale, shift

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        normed = F.group_norm(y, GROUPS, self.scale, self.shift)
        around = self.recurrent.shape[-1] // 2
        return tanh_(F.conv2d(normed, self.recurrent, padding=around).add_(self.drive))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return *super().tensors, self.scale, self.shift

    def with_tensors(self, *tensors: Tensor) -> NormedMapTarget:
        other = copy.copy(self)
        other.recurrent, other.drive, other.scale, other.shift = tensors
        return other

    def select(self, rows: Rows) -> NormedMapTarget:
        return self.with_tensors(self.recurrent, self.drive[rows], self.scale, self.shift)

    def pullback(self) -> Pullback:
        return _MapPullback(self)


class _MapPullback:
    """Gradients through tanh(W * GroupNorm(h) + drive); the norm is computed again."""

    def __init__(self, of: NormedMapTarget) -> None:
        self.of = of
        self.drive_grad: Tensor | None = None
        self.weights: list[Tensor] = []  # gradients of W, scale and shift

    def pull(
        self, y: Tensor, values: tuple[Tensor, ...], grads: tuple[Tensor, ...], base: Tensor
    ) -> Tensor:
        (target,), (grad,) = values, grads
        aten, recurrent, scale = torch.ops.aten, self.of.recurrent, self.of.scale
        inner = aten.tanh_backward.grad_input(grad, target, grad_input=grad)  # (B, hidden, H, W)
        sizes = (*y.shape[:2], y[0, 0].numel(), GROUPS)
        normed, mean, rstd = aten.native_group_norm(y, scale, self.of.shift, *sizes, 1e-5)
        around = [recurrent.shape[-1] // 2] * 2
        of_normed, of_recurrent, _ = aten.convolution_backward(
            inner, normed, recurrent, None, [1, 1], around, [1, 1], False, [0, 0], 1,
            [True, True, False],
        )  # fmt: skip
        of_y, of_scale, of_shift = aten.native_group_norm_backward(
            of_normed, y, mean, rstd, scale, *sizes, [True, True, True]
        )
        found = [of_recurrent, of_scale, of_shift]
        if self.drive_grad is None:
            self.drive_grad, self.weights = inner, found
        else:
            self.drive_grad.add_(inner)
            for total, part in zip(self.weights, found, strict=True):
                total.add_(part)
        return base.add_(of_y)

    def gradients(self) -> tuple[Tensor, ...]:
        of_recurrent, of_scale, of_shift = self.weights
        return of_recurrent, cast(Tensor, self.drive_grad), of_scale, of_shift


class BoundedRate(HandWritten):
    """1 / tau = 1 / clamp(base (1/2 + sigmoid(scale drive + shift)), 0.1, 5), in few passes.

    Of base and scale ``(hidden,)``, drive ``(B, hidden, H, W)`` and shift ``(B, hidden)``. As
    ordinary operations it takes as long as one and a half steps of the solver.
    """

    def forward(self, inputs: Sequence[Tensor], *, keep: bool) -> tuple[Tensor, list[Tensor]]:
        base, scale, drive, shift = inputs
        factor = scale[:, None, None].to(drive.dtype)
        gate = torch.addcmul(shift[..., None, None], drive, factor).sigmoid_()  # (B, hidden, H, W)
        wide = base[:, None, None].to(gate.dtype)
        rate = torch.addcmul(0.5 * wide, wide, gate).clamp_(TAU_MIN, TAU_MAX).reciprocal_()
        return rate, [gate, rate] if keep else []

    def backward(
        self, inputs: Sequence[Tensor], kept: Sequence[Tensor], grad: Tensor
    ) -> Sequence[Tensor]:
        base, scale, drive, _ = inputs
        gate, rate = kept
        # d rate / d tau = -rate^2, and nothing where tau was clamped.
        free = torch.ops.aten.hardtanh_backward(grad, rate, 1 / TAU_MAX, 1 / TAU_MIN)
        minus = free.mul_(rate).mul_(rate)  # the gradient of tau, but for its sign
        places = (0, 2, 3)
        of_base = -(minus * gate).sum(places) - 0.5 * minus.sum(places)  # (hidden,)
        of_logits = torch.ops.aten.sigmoid_backward(minus.mul_(-base[:, None, None]), gate)
        of_scale, of_shift = (of_logits * drive).sum(places), of_logits.sum((2, 3))
        return of_base, of_scale, of_logits.mul_(scale[:, None, None]), of_shift

    def plain(self, *inputs: Tensor) -> Tensor:
        base, scale, drive, shift = inputs
        logits = torch.addcmul(shift[..., None, None], drive, scale[:, None, None])
        tau = bounded_tau(base.view(-1, 1, 1), logits)
        return tau.reciprocal()


class ConvLiquidDynamics(LiquidPart, Wired):
    """The cell: from z and c to the state after one unit of time.

    Args:
        channels: of z, a multiple of 8.
        hidden: of the state, a multiple of 8 (GroupNorm).
        conditioning: width of c.
        solver: any solver.
        steps: its budget of steps.
        wiring: which channels of the state W connects; None for all.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        conditioning: int,
        solver: Solver,
        steps: int,
        *,
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__(steps)
        check_width("hidden", hidden, multiple=GROUPS)
        self.solver = solver
        self.drive = nn.Conv2d(channels, hidden, 1)
        self.tau_drive = nn.Parameter(torch.ones(hidden))
        self.tau_condition = nn.Linear(conditioning, hidden)
        ends = math.log10(TAU_FIRST), math.log10(TAU_MAX)
        self.tau_base = nn.Parameter(torch.logspace(ends[0], ends[1], hidden))
        self.recurrent = nn.Parameter(torch.empty(hidden, hidden, 3, 3))
        self.norm = nn.GroupNorm(GROUPS, hidden)
        nn.init.kaiming_uniform_(self.recurrent, a=math.sqrt(5))
        self.wire(None if wiring is None else wiring.recurrent, "recurrent")

    def time_constant(self, z: Tensor, condition: Tensor) -> Tensor:
        """tau within [0.1, 5], in units of the block's time: ``(B, hidden, H, W)``."""
        return self._rate(self.drive(z), condition).reciprocal()

    def forward(self, z: Tensor, condition: Tensor, start: Tensor | None = None) -> Tensor:
        """h after the cell's time, ``(B, hidden, H, W)``, from ``start`` or from tanh(d)."""
        drive = self.drive(z)
        weights = self.wired("recurrent"), self.norm.weight, self.norm.bias
        recurrent, scale, shift = (weight.to(drive.dtype) for weight in weights)
        dynamics = SemilinearField.of_rate(
            NormedMapTarget(recurrent, drive, scale, shift),
            self._rate(drive, condition).to(drive.dtype),
        )
        h0 = Tanh()(drive) if start is None else start.to(drive.dtype)
        solver = self.solver.with_steps(self.steps)
        return solver.solve(dynamics, h0, t_span=(0.0, self.duration)).y

    def _rate(self, drive: Tensor, condition: Tensor) -> Tensor:
        """1 / tau."""
        return BoundedRate()(self.tau_base, self.tau_drive, drive, self.tau_condition(condition))


TAU_FIRST = 0.3
"""tau_base starts at times geometrically spaced from here to the largest."""

States = dict[int, Tensor]
"""The state of each block, by its place in the model."""


@dataclass
class Context:
    """What the blocks of one evaluation are given, and where they leave their states."""

    condition: Tensor
    starts: States = field(default_factory=dict)
    """states to start from"""
    ends: States = field(default_factory=dict)
    """where each cell has ended"""


class ConvLiquidBlock(nn.Module):
    """skip(x) + conv1x1(SiLU(norm(h))), h the state of the cell after one unit of time.

    Args:
        channels: of x ``(B, channels, H, W)``.
        conditioning: width of the conditioning vector.
        solver: any solver.
        steps: its budget of steps.
        out_channels: of the result and of the state.
        wiring: which channels of the state are connected; None for all.
        key: the block's place in the model, under which its states are kept.
    """

    def __init__(
        self,
        channels: int,
        conditioning: int,
        solver: Solver,
        steps: int,
        *,
        out_channels: int,
        wiring: Wiring | None = None,
        key: int = 0,
    ) -> None:
        super().__init__()
        self.key = key
        self.norm1 = ConditionedNorm(channels, conditioning)
        self.cell = ConvLiquidDynamics(
            channels, out_channels, conditioning, solver, steps, wiring=wiring
        )
        self.norm2 = nn.GroupNorm(GROUPS, out_channels)
        self.out = zeroed(nn.Conv2d(out_channels, out_channels, 1))
        self.skip: nn.Module = (
            nn.Identity() if out_channels == channels else nn.Conv2d(channels, out_channels, 1)
        )

    def forward(self, x: Tensor, context: Context) -> Tensor:
        z = F.silu(self.norm1(x, context.condition))
        start = context.starts.get(self.key)
        places = z.shape[:1] + z.shape[2:]  # (B, H, W)
        if start is not None and start.shape[:1] + start.shape[2:] != places:
            start = None
        h = self.cell(z, F.silu(context.condition), start)
        context.ends[self.key] = h
        return self.skip(x) + self.out(F.silu(self.norm2(h)))
